package graph_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// duplicator calls mutations twice under an idempotency key.
type duplicator struct {
	*server
	as     *auth.Principal
	called []string
}

// call calls a mutation twice under its name as the key, and returns the id of the object
// that the first call answered with. The first call must commit its claim, the second must find
// it and commit nothing.
func (d *duplicator) call(t *testing.T, mutation, object string, input map[string]any) (id string) {
	t.Helper()
	d.called = append(d.called, mutation)
	input["idempotencyKey"] = mutation
	first := d.callOnce(t, mutation, object, input)
	if claims, commits := d.countClaims(); claims != 1 || commits != 1 {
		t.Errorf("%s made %d claims in %d commits, want 1 in 1", mutation, claims, commits)
	}
	d.callOnce(t, mutation, object, input)
	if claims, commits := d.countClaims(); claims != 1 || commits != 0 {
		t.Errorf("a duplicate of %s made %d claims and %d commits, want 1 and none", mutation, claims, commits)
	}
	return first
}

func (d *duplicator) callOnce(t *testing.T, mutation, object string, input map[string]any) (id string) {
	t.Helper()
	d.take()
	inputType := contract(t).Mutation.Fields.ForName(mutation).Arguments.ForName("input").Type
	data := d.ask(t, d.as, fmt.Sprintf(`mutation($input: %s) { %s(input: $input) { %s userErrors { code message } } }`, inputType, mutation, object),
		map[string]any{"input": input})
	var payload struct {
		UserErrors []struct{ Code, Message string }
	}
	text, err := json.Marshal(data[mutation])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &payload); err != nil || len(payload.UserErrors) > 0 {
		t.Fatalf("%s = %s, %v; want success", mutation, text, err)
	}
	_, rest, _ := strings.Cut(string(text), `"id":"`)
	id, _, _ = strings.Cut(rest, `"`)
	return id
}

// countClaims returns how many statements of the last call claimed a key, and how many
// transactions it committed.
func (d *duplicator) countClaims() (claims, commits int) {
	for _, q := range d.take() {
		if strings.HasPrefix(q, "INSERT INTO idempotency_keys") {
			claims++
		}
		if q == "COMMIT" {
			commits++
		}
	}
	return claims, commits
}

// signUp opens an account, which calls as an ADMIN from now on.
func (d *duplicator) signUp(t *testing.T) {
	t.Helper()
	user := d.callOnce(t, "signUp", "user { id }", map[string]any{"username": "ada", "password": "correct horse"})
	sessions, err := d.db.Sessions().LiveSessions(t.Context(), uid.User(user), time.Now(), 1)
	if err != nil || len(sessions) != 1 {
		t.Fatalf("signUp opened %d sessions, %v", len(sessions), err)
	}
	d.as = &auth.Principal{UserID: uid.User(user), Roles: []auth.Role{auth.Admin}, Credential: auth.SessionCredential(sessions[0].ID)}
}

// replays are calls of an entity's mutations, which its own test file adds.
var replays []func(*testing.T, *duplicator)

// addReplay adds calls to TestMutations_take_effect_once_under_an_idempotency_key.
func addReplay(calls func(*testing.T, *duplicator)) bool {
	replays = append(replays, calls)
	return true
}

func TestMutations_take_effect_once_under_an_idempotency_key(t *testing.T) {
	t.Parallel()
	d := &duplicator{server: newServer(t, testenv.SQLite(t))}
	d.signUp(t)

	bob := d.call(t, "createUser", "user { id }", map[string]any{"username": "bob"})
	d.call(t, "updateUser", "user { id }", map[string]any{"id": bob, "name": "Bob"})
	d.call(t, "deleteUser", "user { id }", map[string]any{"id": bob})

	cup := d.call(t, "createProduct", "product { id }", map[string]any{
		"sku": "CUP", "name": "Cup", "price": map[string]any{"amount": "1.00", "currency": "EUR"}, "stock": 9,
	})
	d.call(t, "updateProduct", "product { id }", map[string]any{"id": cup, "name": "Mug"})
	d.call(t, "adjustStock", "product { id }", map[string]any{"productId": cup, "by": 1})

	items := []any{map[string]any{"sku": "CUP", "quantity": 1}}
	pending := d.call(t, "placeOrder", "order { id }", map[string]any{"items": items})
	paid := d.callOnce(t, "placeOrder", "order { id }", map[string]any{"items": items})
	if _, err := d.db.Orders().Update(t.Context(), claim.None, uid.Order(paid), func(o *order.Order) error { return o.Pay(time.Now()) }); err != nil {
		t.Fatal(err)
	}
	d.call(t, "cancelOrder", "order { id }", map[string]any{"id": pending})
	d.call(t, "shipOrder", "order { id }", map[string]any{"id": paid})
	d.call(t, "deliverOrder", "order { id }", map[string]any{"id": paid})
	d.call(t, "refundOrder", "order { id }", map[string]any{"id": paid})

	echo := d.call(t, "registerService", "service { id }", map[string]any{"name": "echo"})
	d.call(t, "updateService", "service { id }", map[string]any{"id": echo, "description": "Echo"})
	instance := func() map[string]any { return map[string]any{"service": "echo", "instanceId": "a"} }
	d.call(t, "registerInstance", "instance { id }", map[string]any{"service": "echo", "instanceId": "a", "url": "http://192.0.2.1:80"})
	d.call(t, "drainInstance", "instance { id }", instance())
	d.call(t, "setInstanceMaintenance", "instance { id }", map[string]any{"service": "echo", "instanceId": "a", "enabled": true})
	d.call(t, "deregisterInstance", "instance { id }", instance())
	d.call(t, "deregisterService", "service { id }", map[string]any{"id": echo})

	for _, calls := range replays {
		calls(t, d)
	}
	d.call(t, "replayDeadLetters", "requested", map[string]any{"consumer": "access"})
	key := d.callOnce(t, "createApiKey", "apiKey { id }", map[string]any{"name": "key", "scopes": []any{"orders:read"}})
	d.call(t, "revokeApiKey", "apiKey { id }", map[string]any{"id": key})
	d.call(t, "changePassword", "user { id }", map[string]any{"currentPassword": "correct horse", "newPassword": "battery staple"})
	d.call(t, "revokeAllSessions", "user { id }", map[string]any{"keepCurrent": true})
	d.call(t, "revokeSession", "session { id }", map[string]any{"id": string(d.as.SessionID())})
	d.call(t, "signOut", "session { id }", map[string]any{})

	var want []string
	for _, m := range contract(t).Mutation.Fields {
		if input := contract(t).Types[m.Arguments.ForName("input").Type.Name()]; input.Fields.ForName("idempotencyKey") != nil {
			want = append(want, m.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(d.called)
	if diff := cmp.Diff(want, d.called); diff != "" {
		t.Errorf("mutations with an idempotency key (-schema +called):\n%s", diff)
	}
}
