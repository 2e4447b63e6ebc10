package graph_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2/ast"

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
	d.repeatWithFewerRights(t, mutation, object, input)
	d.conflict(t, mutation, object, input)
	return first
}

// forCustomers are the mutations that a customer may call for what is its own.
var forCustomers = []string{"cancelOrder", "changePassword", "placeOrder", "refundOrder", "revokeAllSessions", "revokeApiKey", "revokeSession", "signOut"}

// repeatWithFewerRights repeats a call of an ADMIN as the same user that is no longer one, and
// by an API key that may not read: a duplicate asks for permission as a first call does, and
// shows what a read shows.
func (d *duplicator) repeatWithFewerRights(t *testing.T, mutation, object string, input map[string]any) {
	t.Helper()
	customer, key, empty := *d.as, *d.as, *d.as
	customer.Roles = []auth.Role{auth.Customer}
	key.Credential = auth.APIKeyCredential("key_1", writeScopes()...)
	empty.Credential = auth.APIKeyCredential("key_2")
	if text := d.send(t, &customer, mutation, object, input); isRefused(text) == slices.Contains(forCustomers, mutation) {
		t.Errorf("a duplicate of %s by a customer gives %s", mutation, text)
	}
	if text := d.send(t, &empty, mutation, object, input); !isRefused(text) {
		t.Errorf("a duplicate of %s by a key without scopes gives %s", mutation, text)
	}
	d.checkUnread(t, &key, mutation, object, d.send(t, &key, mutation, object, input))
	d.checkWholePayload(t, mutation, input)
}

// checkWholePayload repeats a call by API keys of one read scope each and asks for all that the
// payload leads to: what a key may not read is null, or the call is refused as a whole.
func (d *duplicator) checkWholePayload(t *testing.T, mutation string, input map[string]any) {
	t.Helper()
	payload := contract(t).Mutation.Fields.ForName(mutation).Type.Name()
	for _, read := range []auth.Scope{auth.UsersRead, auth.OrdersRead, auth.ServicesRead} {
		key := *d.as
		key.Credential = auth.APIKeyCredential("key_1", append(writeScopes(), read)...)
		text := d.send(t, &key, mutation, wholeSelection(contract(t), payload, 3), input)
		if !strings.HasPrefix(text, "{") && !strings.HasSuffix(text, "\n{\""+mutation+"\":null}") {
			t.Errorf("%s by a key with %s is done and has errors: %s", mutation, read, text)
		}
	}
}

// wholeSelection selects all fields of a type that need no arguments, to a depth.
func wholeSelection(schema *ast.Schema, typ string, depth int) string {
	var set strings.Builder
	for _, f := range schema.Types[typ].Fields {
		of := schema.Types[f.Type.Name()]
		needsArguments := slices.ContainsFunc(f.Arguments, func(a *ast.ArgumentDefinition) bool { return a.Type.NonNull && a.DefaultValue == nil })
		switch {
		case needsArguments || of.IsCompositeType() && depth == 0 || f.Name == "userErrors":
		case of.IsCompositeType():
			fmt.Fprintf(&set, "%s { %s } ", f.Name, wholeSelection(schema, of.Name, depth-1))
		default:
			set.WriteString(f.Name + " ")
		}
	}
	return set.String() + "__typename"
}

// conflict calls a mutation with a version that the object does not have, by an API key that may
// not read.
func (d *duplicator) conflict(t *testing.T, mutation, object string, input map[string]any) {
	t.Helper()
	if inputType(t, mutation).Fields.ForName("ifVersion") == nil {
		return
	}
	stale := maps.Clone(input)
	delete(stale, "idempotencyKey")
	stale["ifVersion"] = 999
	key := *d.as
	key.Credential = auth.APIKeyCredential("key_1", writeScopes()...)
	d.checkUnread(t, &key, mutation, object, d.send(t, &key, mutation, object, stale))
}

// checkUnread checks that a payload shows an object only if a read by its id shows it.
func (d *duplicator) checkUnread(t *testing.T, as *auth.Principal, mutation, object, text string) {
	t.Helper()
	_, rest, shown := strings.Cut(text, `"id":"`)
	if !shown {
		return
	}
	id, _, _ := strings.Cut(rest, `"`)
	if got := d.run(t, as, `query($id: ID!) { node(id: $id) { id } }`, map[string]any{"id": id}); got == `{"node":null}` && !strings.HasPrefix(mutation, "deregister") {
		t.Errorf("%s shows %s to a key that cannot read it: %s", mutation, object, text)
	}
}

// writeScopes are all scopes that are not for reading.
func writeScopes() []auth.Scope {
	all := append(auth.Scopes(), auth.ServiceScope("echo"))
	return slices.DeleteFunc(all, func(s auth.Scope) bool { return strings.HasSuffix(string(s), ":read") })
}

// isRefused reports whether a response says that the caller may not call, or that the object is
// not there for it.
func isRefused(text string) bool {
	return strings.Contains(text, "needs") || strings.Contains(text, "lacks") || strings.Contains(text, "Only ") || strings.Contains(text, "_NOT_FOUND")
}

func inputType(t *testing.T, mutation string) *ast.Definition {
	t.Helper()
	schema := contract(t)
	return schema.Types[schema.Mutation.Fields.ForName(mutation).Arguments.ForName("input").Type.Name()]
}

// send calls a mutation and returns the response.
func (d *duplicator) send(t *testing.T, as *auth.Principal, mutation, object string, input map[string]any) string {
	t.Helper()
	d.take()
	return d.run(t, as, fmt.Sprintf(`mutation($input: %s!) { %s(input: $input) { %s userErrors { code message } } }`, inputType(t, mutation).Name, mutation, object),
		map[string]any{"input": input})
}

func (d *duplicator) callOnce(t *testing.T, mutation, object string, input map[string]any) (id string) {
	t.Helper()
	var data map[string]any
	if response := d.send(t, d.as, mutation, object, input); json.Unmarshal([]byte(response), &data) != nil {
		t.Fatalf("%s gave %s", mutation, response)
	}
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
func addReplay(calls func(*testing.T, *duplicator)) bool { //nolint:unused // by the test file of a new entity, see docs/recipes
	replays = append(replays, calls)
	return true
}

func TestMutations_take_effect_once_under_an_idempotency_key(t *testing.T) {
	t.Parallel()
	d := &duplicator{server: newServer(t, testenv.SQLite(t))}
	d.signUp(t)

	bob := d.call(t, "createUser", "user { id }", map[string]any{"username": "bob"})
	d.call(t, "updateUser", "user { id }", map[string]any{"id": bob, "name": "Bob"})
	d.call(t, "setPassword", "user { id }", map[string]any{"id": bob, "newPassword": "battery staple"})
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
	d.call(t, "updateInstance", "instance { id }", map[string]any{"service": "echo", "instanceId": "a", "weight": 2})
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
