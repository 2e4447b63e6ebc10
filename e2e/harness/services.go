package harness

import (
	"fmt"
	"maps"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// The operations on services, with the fields that tests look at.
const (
	RegisterService = `mutation($in: RegisterServiceInput!) { registerService(input: $in) {
		service { id name health strategy trusted public tags metadata version healthCheck { path interval timeout } } userErrors { code path } } }`
	RegisterInstance = `mutation($in: RegisterInstanceInput!) { registerInstance(input: $in) {
		instance { id instanceId url weight status incarnation metadata version leaseExpiresAt service { name } } userErrors { code path } } }`
	RenewInstance = `mutation($in: RenewInstanceInput!) { renewInstance(input: $in) { instance { status inflight } userErrors { code } } }`
	PickInstance  = `mutation($in: PickInstanceInput!) { pickInstance(input: $in) { instance { instanceId url } lease userErrors { code } } }`
	ReportOutcome = `mutation($in: ReportOutcomeInput!) { reportOutcome(input: $in) { accepted userErrors { code } } }`
	ReadService   = `query($name: String!) { service(name: $name) { id name description health tags metadata strategy trusted public paymentProvider version
		degraded { reason since realHealthy } instances(first: 100) { nodes { id instanceId url weight status statusReason metadata inflight lastCheck { at passed latencyMs output } } totalCount } } }`
)

// Fields are the fields of an input object.
type Fields = map[string]any

// Input returns the variables of a mutation that takes one input.
func Input(f Fields) Fields { return Fields{"in": f} }

// CreateService registers a service with instances i0, i1, … of the weights, and returns its id.
func CreateService(t *testing.T, c Caller, name string, ttl string, weights ...int) string {
	t.Helper()
	data := c.Do(t, RegisterService, Input(Fields{"name": name}))
	id := Text(data, "registerService", "service", "id")
	if id == "" {
		t.Fatalf("registerService gave %v", data)
	}
	for n, w := range weights {
		CreateInstance(t, c, name, fmt.Sprint("i", n), Fields{"weight": w, "ttl": ttl})
	}
	return id
}

// CreateInstance registers an instance and returns its incarnation.
func CreateInstance(t *testing.T, c Caller, service, id string, more Fields) int {
	t.Helper()
	f := Fields{"service": service, "instanceId": id, "url": "http://127.0.0.1:9/" + id}
	maps.Copy(f, more)
	data := c.Do(t, RegisterInstance, Input(f))
	n := Number(data, "registerInstance", "instance", "incarnation")
	if n == 0 {
		t.Fatalf("registerInstance gave %v", data)
	}
	return n
}

// WithAPIKey returns the caller with an API key of the user that admin makes.
func WithAPIKey(t *testing.T, root Caller, user string, scopes ...any) Caller {
	t.Helper()
	id := Text(root.Do(t, `query($n: String!) { userByUsername(username: $n) { id } }`, Fields{"n": user}), "userByUsername", "id")
	data := root.Do(t, `mutation($in: CreateApiKeyInput!) { createApiKey(input: $in) { secret userErrors { code } } }`,
		Input(Fields{"name": "k", "scopes": scopes, "userId": id}))
	secret := Text(data, "createApiKey", "secret")
	if secret == "" {
		t.Fatalf("createApiKey gave %v", data)
	}
	return Caller{BaseURL: root.BaseURL, Token: secret}
}

// CreateUserWithRole creates a user with the role and returns it signed in.
func CreateUserWithRole(t *testing.T, p *testenv.Process, root Caller, name, role string) Caller {
	t.Helper()
	data := root.Do(t, `mutation($in: CreateUserInput!) { createUser(input: $in) { user { id } userErrors { code } } }`,
		Input(Fields{"username": name, "password": "a password of mine", "roles": []any{role}}))
	if Text(data, "createUser", "user", "id") == "" {
		t.Fatalf("createUser gave %v", data)
	}
	return SignIn(t, p, name, "a password of mine")
}
