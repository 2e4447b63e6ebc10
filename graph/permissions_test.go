package graph_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// TestPermissions_are_the_golden_file calls every root field of the schema, and every mutation
// with each optional field of its input, as every kind of principal: of each role by a session,
// by an API key without scopes and by one of each single scope, and as the owner of the object.
// Besides, as a caller whose access token was refused. The golden file lists who passes the check of permissions, and to whom the object is hidden;
// all others are refused. A new operation, argument, role or scope changes the file.
func TestPermissions_are_the_golden_file(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	var got strings.Builder
	for _, op := range m.operations() {
		fmt.Fprintf(&got, "%s\n", op.name)
		outcomes := map[string][]string{}
		for _, name := range slices.Sorted(maps.Keys(m.principals)) {
			outcome := m.outcome(t, op, m.principals[name])
			outcomes[outcome] = append(outcomes[outcome], name)
		}
		for _, outcome := range []string{"passes", "hidden"} {
			if names := outcomes[outcome]; len(names) > 0 {
				fmt.Fprintf(&got, "  %s: %s\n", outcome, summarize(names, m.principals))
			}
		}
	}
	checkGolden(t, "testdata/permissions.golden", got.String(), "who may do what has changed")
}

// refused stands for a caller whose access token was refused.
var refused = &auth.Principal{}

// contextOf returns the context of a call by the principal.
func contextOf(ctx context.Context, as *auth.Principal) context.Context {
	switch as {
	case nil:
		return ctx
	case refused:
		return auth.WithRefused(ctx, fault.New(fault.TokenExpired, "The access token has expired; refresh it."))
	}
	return auth.With(ctx, as)
}

// permissionMatrix is what the cells are made of.
type permissionMatrix struct {
	*server
	schema     *ast.Schema
	principals map[string]*auth.Principal
	ids        map[string]string // of an object that belongs to the owner, by type
}

// matrixOperation is a row: a document with its variables.
type matrixOperation struct {
	name, document string
	variables      map[string]any
}

func newMatrix(t *testing.T) *permissionMatrix {
	t.Helper()
	if testing.Short() {
		t.Skip("short run: operations that run one after the other have no races but those that other tests show")
	}
	m := &permissionMatrix{server: newServer(t, testenv.SQLite(t)), schema: contract(t), principals: map[string]*auth.Principal{"anonymous": nil, "refused": refused}, ids: map[string]string{}}
	m.fill(t, demo.Size{Users: 5, Orders: 10, Lines: 1})
	order := m.ask(t, staff, `{ orders(first: 1) { nodes { id user { id } items { product { id } } } } }`, nil)["orders"].(map[string]any)["nodes"].([]any)[0].(map[string]any)
	owner := uid.User(order["user"].(map[string]any)["id"].(string))
	m.ids["Order"], m.ids["User"] = order["id"].(string), string(owner)
	m.ids["Product"] = order["items"].([]any)[0].(map[string]any)["product"].(map[string]any)["id"].(string)
	service := m.ask(t, staff, `mutation { registerService(input: {name: "echo"}) { service { id } } }`, nil)["registerService"].(map[string]any)["service"]
	m.ids["Service"] = service.(map[string]any)["id"].(string)
	m.addPrincipals("owner", owner, auth.Customer)
	for _, role := range auth.Roles() {
		m.addPrincipals(string(role), uid.NewUser(time.Unix(0, 0)), role)
	}
	return m
}

// addPrincipals adds a user with each kind of credential.
func (m *permissionMatrix) addPrincipals(name string, id uid.User, role auth.Role) {
	add := func(by string, c auth.Credential) {
		m.principals[name+" "+by] = &auth.Principal{UserID: id, Roles: []auth.Role{role}, Credential: c}
	}
	add("session", auth.SessionCredential("ses_00000000000000000000000000"))
	add("key", auth.APIKeyCredential("key_00000000000000000000000000"))
	for _, s := range append(auth.Scopes(), auth.ServiceScope("echo")) {
		add("key:"+string(s), auth.APIKeyCredential("key_00000000000000000000000000", s))
	}
}

// summarize names the principals in short: "ADMIN session, key:a:read" for two of one user, and
// "always" for every credential of a user.
func summarize(names []string, all map[string]*auth.Principal) string {
	byUser := map[string][]string{}
	for _, name := range names {
		user, by, _ := strings.Cut(name, " ")
		byUser[user] = append(byUser[user], by)
	}
	var parts []string
	for _, user := range slices.Sorted(maps.Keys(byUser)) {
		of := 0
		for name := range all {
			if strings.HasPrefix(name, user+" ") {
				of++
			}
		}
		if of == len(byUser[user]) && of > 0 {
			parts = append(parts, user+" always")
			continue
		}
		parts = append(parts, strings.TrimSpace(user+" "+strings.Join(byUser[user], ", ")))
	}
	return strings.Join(parts, "; ")
}

// operations returns the rows, in the order of the schema.
func (m *permissionMatrix) operations() (all []matrixOperation) {
	for _, root := range []*ast.Definition{m.schema.Query, m.schema.Mutation, m.schema.Subscription} {
		for _, f := range root.Fields {
			if strings.HasPrefix(f.Name, "__") {
				continue
			}
			all = append(all, m.operation(root, f, ""))
			if input := f.Arguments.ForName("input"); input != nil {
				for _, optional := range m.schema.Types[input.Type.Name()].Fields {
					if !optional.Type.NonNull && optional.Name != "ifVersion" && optional.Name != "idempotencyKey" {
						all = append(all, m.operation(root, f, optional.Name))
					}
				}
			}
		}
	}
	return all
}

// operation returns the row of a root field, with the optional field of its input, if any.
func (m *permissionMatrix) operation(root *ast.Definition, f *ast.FieldDefinition, optional string) matrixOperation {
	op := matrixOperation{name: root.Name + "." + f.Name, variables: map[string]any{}}
	if optional != "" {
		op.name += " with " + optional
	}
	var declared, passed []string
	for _, arg := range f.Arguments {
		if !arg.Type.NonNull && arg.Name != "first" {
			continue
		}
		declared, passed = append(declared, fmt.Sprintf("$%s: %s", arg.Name, arg.Type)), append(passed, fmt.Sprintf("%s: $%[1]s", arg.Name))
		op.variables[arg.Name] = m.value(f.Name, arg.Name, arg.Type, optional)
	}
	op.document = string(kindOf(m.schema, root))
	if len(declared) > 0 {
		op.document += "(" + strings.Join(declared, ", ") + ")"
	}
	op.document += " { field: " + f.Name
	if len(passed) > 0 {
		op.document += "(" + strings.Join(passed, ", ") + ")"
	}
	if def := m.schema.Types[f.Type.Name()]; def.IsCompositeType() {
		op.document += " { __typename " + map[bool]string{true: "userErrors { code }"}[def.Fields.ForName("userErrors") != nil] + " }"
	}
	op.document += " }"
	return op
}

func kindOf(s *ast.Schema, root *ast.Definition) ast.Operation {
	switch root {
	case s.Mutation:
		return ast.Mutation
	case s.Subscription:
		return ast.Subscription
	}
	return ast.Query
}

// value returns a valid value of the type. Of an input it has the required fields, a version
// that does not fit, so that nothing is changed, and the optional field.
func (m *permissionMatrix) value(field, name string, typ *ast.Type, optional string) any {
	if typ.Elem != nil {
		return []any{m.value(field, name, typ.Elem, "")}
	}
	def := m.schema.Types[typ.Name()]
	switch def.Kind {
	case ast.Enum:
		return def.EnumValues[0].Name
	case ast.InputObject:
		object := map[string]any{}
		for _, f := range def.Fields {
			if f.Type.NonNull && f.DefaultValue == nil || f.Name == optional || f.Name == "ifVersion" {
				object[f.Name] = m.value(field, f.Name, f.Type, "")
			}
		}
		return object
	default:
		return m.scalar(field, name, def.Name)
	}
}

func (m *permissionMatrix) scalar(field, name, typ string) any {
	texts := map[string]string{
		"username": "someuser", "email": "a@example.org", "password": "correct horse battery", "currentPassword": "correct horse battery", "newPassword": "battery horse correct",
		"sku": "SKU-1", "amount": "1.00", "currency": "EUR", "service": "echo", "url": "http://192.0.2.1", "path": "/", "scopes": "orders:read", "query": "subscription { events { id } }",
		"instanceId": "i1", "legacyId": "L1", "name": "name",
	}
	switch typ {
	case "ID":
		return m.idFor(field, name)
	case "Int", "Long":
		return map[bool]int{true: 99_999, false: 1}[name == "ifVersion"]
	case "Float":
		return 1.5
	case "Boolean":
		return true
	case "DateTime":
		return "2030-01-01T00:00:00Z"
	case "Duration":
		return "30s"
	case "StringMap":
		return map[string]any{"a": "b"}
	}
	if field == "registerService" && name == "name" {
		return "other"
	}
	return cmp.Or(texts[name], "x")
}

// idFor returns the id of the object that the field is about.
func (m *permissionMatrix) idFor(field, name string) string {
	about := strings.ToLower(field + " " + name)
	for _, typ := range []string{"Order", "Product", "Service", "User"} {
		if strings.Contains(about, strings.ToLower(typ)) {
			return m.ids[typ]
		}
	}
	return m.ids["Order"]
}

// outcome calls the operation: "passes" if the caller gets as far as the rules, "hidden" if the
// object is as good as absent, else "refused".
func (m *permissionMatrix) outcome(t *testing.T, op matrixOperation, as *auth.Principal) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx = contextOf(ctx, as)
	prepared, refusal := m.exec.Prepare(ctx, executor.Request{Query: op.document, Variables: op.variables})
	if refusal != nil {
		t.Fatalf("%s: %s %v is refused: %v", op.name, op.document, op.variables, refusal.Errors)
	}
	stream := m.exec.Stream(ctx, prepared)
	defer stream.Close()
	idle := func() {}
	if prepared.Kind() == ast.Subscription {
		idle = cancel // it waits for events, so it was admitted
	}
	resp := stream.Next(ctx, idle)
	if resp == nil {
		return "passes"
	}
	if len(resp.Errors) > 0 {
		code, _ := resp.Errors[0].Extensions["code"].(string)
		return outcomeOf(fault.Code(code))
	}
	var data struct {
		Field *struct {
			UserErrors []struct{ Code fault.Code } `json:"userErrors"`
		} `json:"field"`
	}
	if err := json.Unmarshal(resp.Data, &data); err != nil {
		return "passes" // a scalar or a list
	}
	switch {
	case data.Field == nil:
		return "hidden"
	case len(data.Field.UserErrors) > 0:
		return outcomeOf(data.Field.UserErrors[0].Code)
	}
	return "passes"
}

func outcomeOf(code fault.Code) string {
	switch {
	case code == fault.Forbidden || code.Kind() == fault.KindUnauthenticated:
		return "refused"
	case strings.HasSuffix(string(code), "_NOT_FOUND"):
		return "hidden"
	}
	return "passes"
}
