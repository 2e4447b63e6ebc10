package graph_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/graph/generated"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/plan"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// executors are gqlgen's executor and the planned one over the same domains.
type executors struct {
	*server

	reference, planned *executor.Executor
	faults             *faults
	ids, skus          []string
	events             []*event.Event         // of subscriptions
	payloadObjects     map[reflect.Type][]any // objects that payloads of mutations hold
}

// faults decides which resolvers and stores fail. Equal operations with equal seeds fail alike.
type faults struct {
	seed   atomic.Uint64
	fields atomic.Bool  // resolvers fail, and mutations have made-up payloads
	stores atomic.Int32 // see faultyUsers
	make   func(rnd *rand.Rand, payload reflect.Type) any
}

// around fails, panics or returns null in place of one resolver in ten.
func (f *faults) around(ctx context.Context, next graphql.Resolver) (any, error) {
	fc := graphql.GetFieldContext(ctx)
	if !f.fields.Load() || !fc.IsResolver {
		return next(ctx)
	}
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, f.seed.Load(), fc.Path())
	rnd := rand.New(rand.NewPCG(h.Sum64(), 1))
	switch rnd.IntN(40) {
	case 0:
		return nil, errors.New("a resolver's error")
	case 1:
		return nil, fault.New(fault.Forbidden, "No.")
	case 2:
		panic("a resolver's panic")
	case 3:
		return nil, nil
	case 4:
		return nil, &gqlerror.Error{Message: "an error with a path", Path: ast.Path{ast.PathName("elsewhere")}}
	case 5:
		return struct{}{}, nil // of another type than the schema's
	}
	if fc.Object == "Mutation" {
		return f.make(rnd, mutationPayload(fc.Field.Name)), nil
	}
	return next(ctx)
}

func mutationPayload(name string) reflect.Type {
	for m := range reflect.TypeFor[generated.MutationResolver]().Methods() {
		if strings.EqualFold(m.Name, name) {
			return m.Type.Out(0).Elem()
		}
	}
	panic(name)
}

// The ways in which stores fail.
const (
	usersFail int32 = iota + 1
	usersPanic
	productsFail
	itemsFail
)

type faultyUsers struct {
	user.Store
	mode *atomic.Int32
}

func (s faultyUsers) ByIDs(ctx context.Context, ids []uid.User) (map[uid.User]*user.User, error) {
	switch s.mode.Load() {
	case usersFail:
		return nil, errors.New("the store of users fails")
	case usersPanic:
		panic("the store of users panics")
	}
	return s.Store.ByIDs(ctx, ids)
}

type faultyProducts struct {
	order.ProductStore
	mode *atomic.Int32
}

func (s faultyProducts) ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Product, error) {
	if s.mode.Load() == productsFail {
		return nil, fault.New(fault.Unavailable, "Not now.")
	}
	return s.ProductStore.ByIDs(ctx, ids)
}

type faultyOrders struct {
	order.Store
	mode *atomic.Int32
}

func (s faultyOrders) Items(ctx context.Context, ids []uid.Order) (map[uid.Order][]order.Item, error) {
	if s.mode.Load() == itemsFail {
		return nil, errors.New("the store of items fails")
	}
	return s.Store.Items(ctx, ids)
}

func newExecutors(t testing.TB) *executors {
	t.Helper()
	f := &faults{}
	s := newServer(t, testenv.SQLite(t), func(_ *server, s stores) stores {
		s.users = faultyUsers{s.users, &f.stores}
		s.products = faultyProducts{s.products, &f.stores}
		s.orders = faultyOrders{s.orders, &f.stores}
		return s
	})
	s.fill(t, demo.Size{Users: 20, Orders: 40, Lines: 3})
	x := executorsOf(t, s)
	f.make, x.faults = x.makePayload, f
	x.readIDs(t)
	return x
}

func executorsOf(t testing.TB, s *server) *executors {
	t.Helper()
	x := &executors{server: s, faults: &faults{}}
	x.reference, x.planned = x.newExecutor(t, false), x.newExecutor(t, true)
	return x
}

func (x *executors) newExecutor(t testing.TB, planned bool) *executor.Executor {
	t.Helper()
	h := graph.NewHooks(x.domains)
	p, err := executor.NewPreparer(graph.Definitions(), executor.Config{
		Planned: planned, Cursors: codec, Scalars: graph.Scalars(),
		AroundResponse: h.AroundResponse, AroundRootField: h.AroundRootField, AroundLevel: h.AroundLevel,
		AroundField: func(ctx context.Context, next graphql.Resolver) (any, error) {
			return h.AroundField(ctx, func(ctx context.Context) (any, error) { return x.faults.around(ctx, next) })
		},
		Batch: func(object, field string) plan.Batch {
			if x.faults.fields.Load() {
				return nil // so that resolvers run, which fail
			}
			return h.Batch(object, field)
		},
		Limits: executor.Limits{Tokens: 1e6, Fields: 1e5, ExpandedFields: 1e6, Aliases: 1e5, Complexity: 1e7, Errors: 1e6, FragmentDepth: 50, Depth: 50, Directives: 1e5},
	})
	if err != nil {
		t.Fatal(err)
	}
	root := fedResolver{graph.NewResolver(x.domains, []byte("secret"), p), x}
	schema := generated.NewExecutableSchema(generated.Config{Resolvers: root, Schema: graph.Definitions()})
	exec, err := p.NewExecutor(schema, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return exec
}

// fedResolver is the schema's resolvers with subscriptions that bring some events of their own.
type fedResolver struct {
	*graph.Resolver

	x *executors
}

func (r fedResolver) Subscription() generated.SubscriptionResolver { return fedEvents{r.x} }

type fedEvents struct{ x *executors }

func (f fedEvents) feed() (<-chan *event.Event, error) {
	events := make(chan *event.Event, len(f.x.events))
	for _, e := range f.x.events {
		events <- e
	}
	close(events)
	return events, nil
}

func (f fedEvents) Events(context.Context, *event.Cursor, []event.Type, *string) (<-chan *event.Event, error) {
	return f.feed()
}

func (f fedEvents) UserEvents(context.Context, string, *event.Cursor) (<-chan *event.Event, error) {
	return f.feed()
}

func (f fedEvents) OrderEvents(context.Context, *string, *string, *event.Cursor) (<-chan *event.Event, error) {
	return f.feed()
}

func (f fedEvents) ServiceEvents(context.Context, *string, *event.Cursor) (<-chan *event.Event, error) {
	return f.feed()
}

func (x *executors) readIDs(t testing.TB) {
	t.Helper()
	for _, list := range []string{"users", "products", "orders", "events"} {
		for _, n := range x.ask(t, staff, `{ list: `+list+`(first: 20) { nodes { id } } }`, nil)["list"].(map[string]any)["nodes"].([]any) {
			x.ids = append(x.ids, n.(map[string]any)["id"].(string))
		}
	}
	for _, n := range x.ask(t, staff, `{ products(first: 10) { nodes { sku } } }`, nil)["products"].(map[string]any)["nodes"].([]any) {
		x.skus = append(x.skus, n.(map[string]any)["sku"].(string))
	}
	ctx := auth.With(t.Context(), staff)
	x.payloadObjects = map[reflect.Type][]any{}
	for _, id := range x.ids {
		var v any
		switch kind, _ := uid.KindOf(id); kind {
		case user.Entity.Kind:
			found, _ := x.domains.Users.ByIDs(ctx, []uid.User{uid.User(id)})
			v = found[uid.User(id)]
		case uid.KindEvent:
			found, _ := x.domains.Log.ByIDs(ctx, []uid.Event{uid.Event(id)})
			if len(x.events) < 3 {
				x.events = append(x.events, found[uid.Event(id)])
			}
			continue
		case order.OrderEntity.Kind:
			found, _ := x.domains.Orders.ByIDs(ctx, []uid.Order{uid.Order(id)})
			v = found[uid.Order(id)]
		case order.ProductEntity.Kind:
			found, _ := x.domains.Products.ByIDs(ctx, []uid.Product{uid.Product(id)})
			v = found[uid.Product(id)]
		default:
			continue
		}
		x.payloadObjects[reflect.TypeOf(v)] = append(x.payloadObjects[reflect.TypeOf(v)], v)
	}
}

// makePayload returns a payload whose fields are null, zero, or objects of the database.
func (x *executors) makePayload(rnd *rand.Rand, payload reflect.Type) any {
	v := reflect.New(payload)
	for i := range payload.NumField() {
		f := v.Elem().Field(i)
		if all := x.payloadObjects[f.Type()]; len(all) > 0 && rnd.IntN(4) > 0 {
			f.Set(reflect.ValueOf(all[rnd.IntN(len(all))]))
		} else if f.Kind() == reflect.Pointer && rnd.IntN(2) == 0 {
			f.Set(reflect.New(f.Type().Elem()))
		}
	}
	return v.Interface()
}

// callers are one of each role and kind of credential.
func (x *executors) callers() []*auth.Principal {
	self := uid.User(x.ids[0])
	session := auth.SessionCredential("ses_00000000000000000000000000")
	key := func(scopes ...auth.Scope) auth.Credential {
		return auth.APIKeyCredential("key_00000000000000000000000000", scopes...)
	}
	return []*auth.Principal{
		staff, nil,
		{UserID: self, Roles: []auth.Role{auth.Customer}, Credential: session},
		{UserID: self, Roles: []auth.Role{auth.Staff}, Credential: session},
		{UserID: self, Roles: []auth.Role{auth.Staff, auth.Admin}, Credential: key(auth.OrdersRead)},
		{UserID: self, Roles: []auth.Role{auth.Staff, auth.Admin}, Credential: key(auth.UsersRead, auth.ServicesRead)},
		{UserID: self, Roles: []auth.Role{auth.Customer}, Credential: key()},
	}
}

// use is that of legalDocument, mostly without nulls that the type forbids.
func (o *operation) use(t *ast.Type, v any) string {
	text := o.legalDocument.use(t, v)
	if name, ok := strings.CutPrefix(text, "$"); ok && t.NonNull && o.variables[name] == nil && !o.oneIn(20) {
		o.variables[name] = plain(v)
	}
	return text
}

// operation writes random operations that nearly always are legal: fields again and again, which
// merge, fragments in fragments, conditions and variables.
type operation struct {
	legalDocument

	fragments []string
	arguments map[string]string // what a field with arguments was written as, by alias
}

func (o *operation) selections(def *ast.Definition, levels int) string {
	var all []string
	for range 1 + o.rnd.IntN(5) {
		all = append(all, o.selectionOf(def, levels))
	}
	return strings.Join(all, " ")
}

func (o *operation) selectionOf(def *ast.Definition, levels int) string {
	switch {
	case def.IsAbstractType() && o.oneIn(2):
		possible := o.schema.GetPossibleTypes(def)
		return o.fragment(possible[o.rnd.IntN(len(possible))], levels)
	case o.oneIn(8):
		return pick(&o.legalDocument, "__typename", "kind: __typename")
	case o.oneIn(6):
		on := def
		if len(def.Interfaces) > 0 && o.oneIn(3) {
			on = o.schema.Types[def.Interfaces[0]]
		}
		return o.fragment(on, levels)
	}
	f := def.Fields[o.rnd.IntN(len(def.Fields))]
	leaf := !o.schema.Types[f.Type.Name()].IsCompositeType()
	if strings.HasPrefix(f.Name, "__") || !leaf && levels == 0 {
		return "__typename"
	}
	return o.fieldOf(def, f, levels)
}

func (o *operation) fragment(on *ast.Definition, levels int) string {
	switch condition := o.condition(); o.rnd.IntN(3) {
	case 0:
		return "... on " + on.Name + condition + " { " + o.selections(on, levels) + " }"
	case 1:
		text := o.selections(on, levels)
		name := fmt.Sprintf("F%d", len(o.fragments))
		o.fragments = append(o.fragments, "fragment "+name+" on "+on.Name+" { "+text+" }")
		return "..." + name + condition + pick(&o.legalDocument, "", " ..."+name)
	default:
		return "... on " + on.Name + " { ..." + condition + " { " + o.selections(on, levels) + " } }"
	}
}

func (o *operation) condition() string {
	if !o.oneIn(5) {
		return ""
	}
	boolean := ast.NonNullNamedType("Boolean", nil)
	return fmt.Sprintf(" @%s(if: %s)", pick(&o.legalDocument, "include", "skip"), o.use(boolean, o.oneIn(2)))
}

func (o *operation) fieldOf(def *ast.Definition, f *ast.FieldDefinition, levels int) string {
	alias := fmt.Sprintf("%s_%s", strings.ToLower(def.Name), f.Name)
	text := o.arguments[alias]
	if text == "" || o.oneIn(4) {
		if text != "" || def == o.schema.Mutation {
			alias = fmt.Sprintf("%s_%d", alias, len(o.arguments))
		}
		text = f.Name
		var given []string
		for _, a := range f.Arguments {
			if a.Type.NonNull && a.DefaultValue == nil || o.oneIn(4) {
				given = append(given, a.Name+": "+o.use(a.Type, o.argument(a)))
			}
		}
		if len(given) > 0 {
			text += "(" + strings.Join(given, ", ") + ")"
		}
		o.arguments[alias] = text
	}
	text = alias + ": " + text + o.condition()
	if inner := o.schema.Types[f.Type.Name()]; inner.IsCompositeType() {
		text += " { " + o.selections(inner, levels-1) + " }"
	}
	return text
}

// argument returns a value that is mostly one that the resolvers take.
func (o *operation) argument(a *ast.ArgumentDefinition) any {
	switch {
	case o.oneIn(10):
	case a.Name == "first" || a.Name == "last":
		return 1 + o.rnd.IntN(4)
	case a.Name == "ids":
		return []any{pick(&o.legalDocument, o.ids...), pick(&o.legalDocument, o.ids...), "x", pick(&o.legalDocument, o.ids...)}
	}
	return o.value(a.Name, a.Type, 0)
}

func (x *executors) write(seed uint64) (*operation, string) {
	o := &operation{
		legalDocument: legalDocument{schema: graph.Definitions(), rnd: rand.New(rand.NewPCG(seed, 2)), ids: x.ids, skus: x.skus, variables: map[string]any{}},
		arguments:     map[string]string{},
	}
	kind, root := "query", o.schema.Query
	if x.faults.fields.Load() && o.oneIn(3) {
		kind, root = "mutation", o.schema.Mutation
	}
	text := o.selections(root, 5)
	if o.oneIn(6) {
		kind, root = "subscription", o.schema.Subscription
		text = o.fieldOf(root, root.Fields[o.rnd.IntN(len(root.Fields))], 5)
	}
	if len(o.declared) > 0 {
		kind += "(" + strings.Join(o.declared, ", ") + ")"
	}
	return o, kind + " { " + text + " }\n" + strings.Join(o.fragments, "\n")
}

// compare runs a random operation by both executors. It returns whether it was legal, and whether it had errors.
func (x *executors) compare(t testing.TB, seed uint64) (ran, failed bool) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 3))
	x.faults.seed.Store(seed)
	x.faults.fields.Store(rnd.IntN(2) == 0)
	x.faults.stores.Store(int32(max(0, rnd.IntN(12)-7)))
	o, text := x.write(seed)
	as := x.callers()[rnd.IntN(7)]
	want, ok := runOn(t, x.reference, as, text, o.variables)
	if !ok {
		return false, false
	}
	got, _ := runOn(t, x.planned, as, text, o.variables)
	if got != want {
		t.Errorf("seed %d, faults of fields %v, of stores %d, caller %+v\n%s\n%v\ngave  %s\nwant %s", seed, x.faults.fields.Load(), x.faults.stores.Load(), as, text, o.variables, got, want)
	}
	return true, strings.Contains(want, "\n")
}

// runOn returns the data and the errors, in any order, as text; ok is false if the operation was refused.
func runOn(t testing.TB, exec *executor.Executor, as *auth.Principal, query string, vars map[string]any) (text string, ok bool) {
	t.Helper()
	ctx := t.Context()
	if as != nil {
		ctx = auth.With(ctx, as)
	}
	op, refusal := exec.Prepare(ctx, executor.Request{Query: query, Variables: vars})
	if refusal != nil {
		return "", false
	}
	if op.Kind() == ast.Subscription {
		stream := exec.Stream(ctx, op)
		defer stream.Close()
		for resp := stream.Next(ctx, func() {}); resp != nil; resp = stream.Next(ctx, func() {}) {
			text += textOf(t, resp.Response) + "\n"
			if resp.Data == nil {
				break // it could not start
			}
		}
		return text, true
	}
	resp, err := exec.Run(ctx, op)
	if err != nil {
		t.Fatal(err)
	}
	return textOf(t, resp), true
}

func textOf(t testing.TB, resp *graphql.Response) string {
	t.Helper()
	if resp.Data != nil && !json.Valid(resp.Data) {
		t.Fatalf("gave %s", resp.Data)
	}
	var lines []string
	for _, e := range resp.Errors {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	slices.Sort(lines)
	return strings.Join(append([]string{string(resp.Data)}, lines...), "\n")
}

// TestPlanned_gives_what_gqlgen_gives runs thousands of random operations by both executors.
func TestPlanned_gives_what_gqlgen_gives(t *testing.T) {
	t.Parallel()
	seeds := uint64(3000)
	if testing.Short() {
		seeds = 200 // under the race detector
	}
	x := newExecutors(t)
	ran, failed := uint64(0), uint64(0)
	for seed := uint64(0); seed < seeds && !t.Failed(); seed++ {
		legal, withErrors := x.compare(t, seed)
		if legal {
			ran++
		}
		if withErrors {
			failed++
		}
	}
	t.Logf("%d legal operations, %d of them with errors", ran, failed)
	if ran < seeds/2 || failed < seeds/6 || failed > ran*9/10 {
		t.Errorf("%d operations ran, %d of them with errors", ran, failed)
	}
}

// FuzzPlanned compares the executors for operations of a seed.
func FuzzPlanned(f *testing.F) {
	x := newExecutors(f)
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { x.compare(t, seed) })
}
