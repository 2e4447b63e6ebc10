// Package plan compiles an operation into a plan once and executes the plan for each request.
//
// A plan has the merged fields of each selection by object type. Executing it walks the response
// breadth-first: a level holds the objects of one selection for all parents together. Fields that
// may wait are called per level and side by side, plain ones are read by generated accessors, and
// JSON is appended once, into a pooled buffer.
//
// The package knows no schema: package generated has the tables of the types (see Types), written
// from gqlgen's binding data. Whatever is not plain, such as arguments, panics, middleware and
// errors of resolvers, runs through gqlgen's own functions, so that both executors agree. They
// differ in two points: errors come in the order in which levels run, and the field middleware is
// not called for plain fields below the root.
package plan

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"
)

// Types are the tables of a schema's types, which generated code fills.
type Types struct {
	Objects map[string]*Object

	// Abstract has a function for each interface and union. It returns the name of a value's
	// object type and the object as the accessors of that type expect it, nil for null.
	Abstract map[string]func(v any) (object string, obj any)

	// NewExecution returns what the functions of fields get as ec, for one operation.
	NewExecution func(*graphql.OperationContext) any
}

// Object is the table of an object type.
type Object struct {
	Name         string
	Implementors []string // the names of the type and its interfaces
	Fields       map[string]*Field
}

// Field says how a field is read. A leaf has Marshal and maybe Append; a field with objects has
// Read if it is plain, else Resolve; a field of the subscription root has Stream alone.
type Field struct {
	Waits       bool   // a resolver, or a method with a context, arguments or an error
	Method      bool   // as in graphql.FieldContext
	Resolver    bool   // as in graphql.FieldContext
	NonNull     bool   // the field's type
	List        bool   // the field is a list of objects
	ItemNonNull bool   // the items of that list
	Text        bool   // Append appends text that counts against the limit of a response
	Type        string // the objects' type, empty for a leaf
	GQL         string // the type as the schema has it, for messages

	// Append appends the value as JSON unless it is null against the schema: then Marshal reports it.
	Append  func(b []byte, obj any) (out []byte, ok bool)
	Marshal func(ctx context.Context, ec any, f graphql.CollectedField, obj any) graphql.Marshaler
	Read    func(obj any, to *Values)
	Resolve func(ctx context.Context, ec any, f graphql.CollectedField, obj any, to *Values)
	Stream  func(ctx context.Context, ec any, f graphql.CollectedField, write EventWriter) func(context.Context) graphql.Marshaler
}

// EventWriter writes the value of a subscription's field that read adds.
type EventWriter func(ctx context.Context, read func(to *Values)) graphql.Marshaler

// Batch reads a field of all the parents of a level at once; parents may have nils. It calls
// Begin for each parent before it adds that parent's value.
type Batch func(ctx context.Context, f graphql.CollectedField, parents []any, to *Values)

// Read is what a Resolve function returns to gqlgen in place of the value that it has added.
var Read graphql.Marshaler = graphql.WriterFunc(nil)

// Values are the objects that one field has for all the parents of a level.
type Values struct {
	refs  []ref // by parent
	items []any // the objects of all parents, nil for a null in a list
	at    int   // the parent whose value is added
	err   func(parent int, err error)

	level  *level  // of items, if the field's type is an object type
	places []place // of items, if it is an abstract type

	mu       sync.Mutex              // for the following, which are made when a path is needed
	contexts []*graphql.FieldContext // of the field, by parent
	owners   []int                   // the parents of items
}

// ref is the value of one parent: items[start:start+n].
type ref struct {
	kind     refKind
	start, n int
}

type refKind uint8

const (
	failed refKind = iota // null whose error is reported
	null
	object
	list
)

// place is an object in a level; level is nil for null.
type place struct {
	level *level
	at    int
}

// Begin says which parent's value is added next.
func (v *Values) Begin(parent int) { v.at = parent }

// Null adds null.
func (v *Values) Null() { v.refs[v.at] = ref{kind: null} }

// Fail reports an error; the value is null.
func (v *Values) Fail(err error) {
	v.refs[v.at] = ref{}
	v.err(v.at, err)
}

// Object adds one object.
func (v *Values) Object(obj any) {
	v.refs[v.at] = ref{object, len(v.items), 1}
	v.items = append(v.items, obj)
}

// List begins a list, whose n items are then added by Item.
func (v *Values) List(n int) {
	v.refs[v.at] = ref{kind: list, start: len(v.items)}
	if need := len(v.items) + n; need > cap(v.items) {
		grown := make([]any, len(v.items), max(need, 2*cap(v.items), min(n*(len(v.refs)-v.at), 1<<10)))
		copy(grown, v.items)
		v.items = grown
	}
}

// Item adds an item of the list, nil for null.
func (v *Values) Item(obj any) {
	v.refs[v.at].n++
	v.items = append(v.items, obj)
}
