package plan_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/executor/plan"
)

func fails(context.Context) (any, error)  { return nil, errors.New("failed") }
func panics(context.Context) (any, error) { panic("oops") }

func item(id string, more ...any) object {
	o := object{"kind": "Item", "id": id, "name": "item " + id, "price": object{"kind": "Size", "id": "p" + id}}
	for i := 0; i < len(more); i += 2 {
		o[more[i].(string)] = more[i+1]
	}
	return o
}

// TestExec has a case for each rule of the specification.
func TestExec(t *testing.T) {
	t.Parallel()
	size := object{"kind": "Size", "id": "s", "unit": "m"}
	for name, tt := range map[string]struct {
		root  object
		query string
		vars  map[string]any
		data  string
		errs  []string
	}{
		"fields in the order of the document, with aliases": {
			root: object{"item": item("1")}, query: `{ b: item { y: name x: id __typename } a: __typename }`,
			data: `{"b":{"y":"item 1","x":"1","__typename":"Item"},"a":"Query"}`,
		},
		"fields merge": {
			root:  object{"item": item("1", "size", size)},
			query: `{ item { id size { id } } ...F item { id name } } fragment F on Query { item { size { unit } } }`,
			data:  `{"item":{"id":"1","size":{"id":"s","unit":"m"},"name":"item 1"}}`,
		},
		"fragments by type": {
			root:  object{"things": []object{item("1"), size}},
			query: `{ things { __typename ... on Size { unit } ... on Node { id } ...F } } fragment F on Item { name }`,
			data:  `{"things":[{"__typename":"Item","id":"1","name":"item 1"},{"__typename":"Size","unit":"m","id":"s"}]}`,
		},
		"a union": {
			root: object{"thing": size}, query: `{ thing { ... on Item { id } ... on Size { unit } } }`,
			data: `{"thing":{"unit":"m"}}`,
		},
		"an object without fields for its type": {
			root: object{"thing": size}, query: `{ thing { ... on Item { id } } }`, data: `{"thing":{}}`,
		},
		"skip and include": {
			root:  object{"item": item("1")},
			query: `query($a: Boolean!, $b: Boolean!) { item { id @skip(if: $a) name @include(if: $b) ... @include(if: $a) { price { id @skip(if: true) } } } }`,
			vars:  map[string]any{"a": true, "b": false}, data: `{"item":{"price":{}}}`,
		},
		"null where it is allowed": {
			root:  object{"item": item("1", "name", nil), "holes": []object{nil, item("2")}},
			query: `{ item { name size { id } parts { id } } other { id } holes { id } }`,
			data:  `{"item":{"name":null,"size":null,"parts":null},"other":null,"holes":[null,{"id":"2"}]}`,
		},
		"an empty list": {
			root: object{"items": []object{}}, query: `{ items { id } }`, data: `{"items":[]}`,
		},
		"an error of a resolver has its path and location": {
			root:  object{"items": []object{item("1"), item("2", "next", fails)}},
			query: `{ items { id n: next { id } } }`,
			data:  `{"items":[{"id":"1","n":null},{"id":"2","n":null}]}`,
			errs:  []string{"items[1].n: failed at 1:14"},
		},
		"an error of a leaf": {
			root: object{"item": item("1", "waiting", fails)}, query: `{ item { waiting id } }`,
			data: `{"item":{"waiting":null,"id":"1"}}`, errs: []string{"item.waiting: failed at 1:10"},
		},
		"a null goes up to the next field that may be null": {
			root:  object{"items": []object{item("1", "next", item("2", "price", nil))}},
			query: `{ items { id next { id price { id } } } }`,
			data:  `{"items":[{"id":"1","next":null}]}`,
			errs:  []string{"items[0].next.price: cannot return null for non-null field Item.price (Size!): the model struct field was nil and the field has no resolver"},
		},
		"a null item takes its list along": {
			root:  object{"items": []object{item("1"), nil}, "other": item("3")},
			query: `{ items { id } other { id } }`, data: `{"items":null,"other":{"id":"3"}}`,
			errs: []string{"items[1]: cannot return null for non-null element of field Query.items (Item!): the list element was nil"},
		},
		"an invalid item takes its list along, and its siblings' errors are kept": {
			root:  object{"items": []object{item("1", "sure", fails), item("2", "next", fails), item("3", "id", nil)}},
			query: `{ items { id sure { id } next { id } } }`, data: `{"items":null}`,
			errs: []string{
				"items[0].sure: failed at 1:14", "items[1].next: failed at 1:26",
				"items[1].sure: cannot return null for non-null field Item.sure (Item!): the resolver returned nil",
				"items[2].id: cannot return null for non-null field Item.id (String!): the model struct field was nil and the field has no resolver",
				"items[2].sure: cannot return null for non-null field Item.sure (Item!): the resolver returned nil",
			},
		},
		"an invalid item of a list that may have nulls": {
			root: object{"holes": []object{item("1", "id", nil), item("2")}}, query: `{ holes { id } }`,
			data: `{"holes":[null,{"id":"2"}]}`,
			errs: []string{"holes[0].id: cannot return null for non-null field Item.id (String!): the model struct field was nil and the field has no resolver"},
		},
		"a null goes up to the data": {
			root: object{"sure": fails, "item": item("1")}, query: `{ item { id } sure { id } }`,
			data: `null`, errs: []string{"sure: failed at 1:15"},
		},
		"a null leaf goes up to the data": {
			root: object{}, query: `{ text }`, data: `null`,
			errs: []string{"text: cannot return null for non-null field Query.text (String!): the resolver returned nil"},
		},
		"a nil pointer in an interface is null without an error": {
			root: object{"thing": object{}, "things": []object{{}}}, query: `{ thing { __typename } }`, data: `{"thing":null}`,
		},
		"a panic is the error of its field": {
			root: object{"items": []object{
				item("1", "next", panics), item("2", "waiting", panics),
				item("3", "size", func() any { panic("size") }), item("4", "name", func() any { panic("name") }),
				item("5", "size", size),
			}},
			query: `{ items { next { id } waiting size { id } name id } }`,
			data: `{"items":[{"next":null,"waiting":null,"size":null,"name":"item 1","id":"1"},{"next":null,"waiting":null,"size":null,"name":"item 2","id":"2"},` +
				`{"next":null,"waiting":null,"size":null,"name":"item 3","id":"3"},{"next":null,"waiting":null,"size":null,"name":null,"id":"4"},` +
				`{"next":null,"waiting":null,"size":{"id":"s"},"name":"item 5","id":"5"}]}`,
			errs: []string{"items[0].next: panic: oops", "items[1].waiting: panic: oops", "items[2].size: panic: size", "items[3].name: panic: name"},
		},
		"a panic of a field that is never null": {
			root: object{"item": item("1", "price", func() any { panic("price") })}, query: `{ item { id price { id } } }`,
			data: `{"item":null}`, errs: []string{"item.price: panic: price"},
		},
		"an unknown type": {
			root: object{"thing": object{"kind": 1}, "item": item("1")}, query: `{ thing { __typename } item { id } }`,
			data: `{"thing":null,"item":{"id":"1"}}`, errs: []string{"thing: panic: interface conversion: interface {} is int, not string"},
		},
		"an unknown type of an item": {
			root: object{"things": []object{item("1"), {"kind": 1}}}, query: `{ things { id } }`,
			data: `null`, errs: []string{"things[1]: panic: interface conversion: interface {} is int, not string"},
		},
		"arguments with variables and defaults": {
			root: object{"item": item("1", "any", func(ctx context.Context) (any, error) {
				return fmt.Sprint(graphql.GetFieldContext(ctx).Args["n"]), nil
			})},
			query: `query($n: Int) { item { a: any b: any(n: 2) c: any(n: $n) } }`, vars: map[string]any{"n": 3},
			data: `{"item":{"a":"7","b":"2","c":"3"}}`,
		},
		"text with escapes": {
			root: object{"text": "\x00\x1f\t\r\n\"\\/<é\u2028\xff"}, query: `{ text }`,
			data: "{\"text\":\"\\u0000\\u001F\\t\\r\\n\\\"\\\\/<é\u2028\xff\"}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, errs := newFixture(tt.root).run(t, tt.query, tt.vars)
			if data != tt.data {
				t.Errorf("gave %s\nwant %s", data, tt.data)
			}
			if !slices.Equal(errs, tt.errs) {
				t.Errorf("errors %q\nwant   %q", errs, tt.errs)
			}
		})
	}
}

func TestExec_runs_mutations_one_after_the_other(t *testing.T) {
	t.Parallel()
	var calls []string
	call := func(name string, v any) func(context.Context) (any, error) {
		return func(context.Context) (any, error) {
			calls = append(calls, name)
			return v, nil
		}
	}
	f := newFixture(object{
		"first":  call("first", item("1", "next", call("below first", item("2")))),
		"second": call("second", item("3")),
	})
	data, errs := f.run(t, `mutation { b: first { next { id } } second { id } a: first { id } }`, nil)
	if want := `{"b":{"next":{"id":"2"}},"second":{"id":"3"},"a":{"id":"1"}}`; data != want || errs != nil {
		t.Errorf("gave %s, %v", data, errs)
	}
	if want := []string{"first", "below first", "second", "first"}; !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
}

func TestExec_runs_waiting_fields_side_by_side(t *testing.T) {
	t.Parallel()
	var meet sync.WaitGroup // of two resolvers, each of which waits for the other
	together := func(v any) func(context.Context) (any, error) {
		return func(context.Context) (any, error) {
			meet.Done()
			meet.Wait()
			return v, nil
		}
	}
	for _, query := range []string{`{ item { id } other { id } }`, `{ sure { next { id } waiting } }`, `{ sure { size { id } next { id } waiting } }`} {
		meet.Add(2)
		f := newFixture(object{
			"item": together(item("1")), "other": together(item("2")),
			"sure": item("3", "next", together(item("4")), "waiting", together("x")),
		})
		if data, errs := f.run(t, query, nil); errs != nil {
			t.Errorf("gave %s, %v", data, errs)
		}
	}
}

func TestExec_calls_a_batch_once_for_each_level(t *testing.T) {
	t.Parallel()
	parts := func(ids ...string) (all []object) {
		for _, id := range ids {
			all = append(all, item(id))
		}
		return all
	}
	f := newFixture(object{"holes": []object{item("1", "parts", parts("a", "b")), nil, item("2", "parts", parts("c", "d", "e"))}})
	var levels [][]any
	f.hooks.AroundLevel = func(ctx context.Context, objects []any) context.Context {
		levels = append(levels, objects)
		return ctx
	}
	var calls [][]string
	f.hooks.Batch = func(typ, field string) plan.Batch {
		if typ != "Item" || field != "batched" {
			return nil
		}
		return func(_ context.Context, c graphql.CollectedField, parents []any, to *plan.Values) {
			var ids []string
			for i, p := range parents {
				if p == nil {
					continue
				}
				id := p.(object)["id"].(string)
				ids = append(ids, c.Alias+id)
				switch to.Begin(i); id {
				case "b":
					to.Null()
				case "c":
					to.Fail(errors.New("failed"))
				case "e":
					panic("never reached for all")
				default:
					to.Object(item("of " + id))
				}
			}
			calls = append(calls, ids)
		}
	}
	data, errs := f.run(t, `{ holes { x: batched { id } } }`, nil)
	if want := `{"holes":[{"x":{"id":"of 1"}},null,{"x":{"id":"of 2"}}]}`; data != want || errs != nil {
		t.Errorf("gave %s, %v", data, errs)
	}
	if len(calls) != 1 || !slices.Equal(calls[0], []string{"x1", "x2"}) || len(levels) != 1 || len(levels[0]) != 3 {
		t.Errorf("calls %v, levels %v", calls, levels)
	}
	data, errs = f.run(t, `{ holes { parts { batched { id } } } }`, nil)
	if want := `{"holes":[{"parts":[{"batched":null},{"batched":null}]},null,{"parts":[{"batched":null},{"batched":null},{"batched":null}]}]}`; data != want {
		t.Errorf("after a panic gave %s", data)
	}
	if len(errs) != 6 || errs[5] != "holes[2].parts[2].batched: panic: never reached for all" {
		t.Errorf("a panic gave %q", errs)
	}
}

func TestExec_subscription_writes_each_event(t *testing.T) {
	t.Parallel()
	events := make(chan object, 2)
	f := newFixture(object{"events": func(context.Context) (any, error) { return (<-chan object)(events), nil }})
	ctx, next := f.start(t, `subscription { e: events { id next { id } } }`, nil)
	events <- item("1", "next", fails)
	events <- item("2", "id", nil)
	close(events)
	for _, want := range []string{`{"e":{"id":"1","next":null}}`, `{"e":null}`} {
		if resp := next(ctx); string(resp.Data) != want {
			t.Errorf("gave %s, want %s", resp.Data, want)
		}
	}
	if next(ctx) != nil {
		t.Error("there is a response after the last event")
	}
	if errs := errorsOf(ctx); len(errs) != 2 || errs[1] != "next: failed at 1:31" { // gqlgen's path begins below the event, too
		t.Errorf("errors %q", errs)
	}
}

func TestExec_subscription_that_fails(t *testing.T) {
	t.Parallel()
	f := newFixture(object{"broken": fails})
	ctx, _ := f.start(t, `subscription { broken { id } }`, nil)
	if errs := errorsOf(ctx); len(errs) != 1 || !strings.HasPrefix(errs[0], "broken: failed") {
		t.Errorf("errors %q", errs)
	}
}

func TestExec_counts_text_and_ends(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	all := make([]object, 100)
	for i := range all {
		all[i] = item("1", "name", long)
	}
	f := newFixture(object{"items": all})
	var counted atomic.Int64
	f.hooks.CountText = func(_ context.Context, n int64) bool { return counted.Add(n) < 1e9 }
	if _, errs := f.run(t, `{ items { name size { id } } }`, nil); errs != nil || counted.Load() != 100_000 {
		t.Errorf("counted %d, %v", counted.Load(), errs)
	}
	counted.Store(0)
	f.hooks.CountText = func(_ context.Context, n int64) bool { return counted.Add(n) < 5000 }
	if data, _ := f.run(t, `{ items { name } }`, nil); len(data) > 10_000 {
		t.Errorf("gave %d bytes after the end", len(data))
	}
	f = newFixture(object{"items": []object{item("1", "next", func(context.Context) (any, error) {
		t.Error("a resolver ran after the end")
		return nil, nil
	})}})
	f.hooks.Ended = func(context.Context) bool { return true }
	if _, errs := f.run(t, `{ items { next { id } } }`, nil); errs != nil {
		t.Errorf("errors after the end: %q", errs)
	}
}

func TestExec_middleware(t *testing.T) {
	t.Parallel()
	f := newFixture(object{"item": item("1", "next", item("2")), "other": item("3"), "text": "x"})
	var mu sync.Mutex
	var calls []string
	f.field = func(ctx context.Context, next graphql.Resolver) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, graphql.GetFieldContext(ctx).Path().String())
		return next(ctx)
	}
	f.first = func(ctx context.Context, next graphql.RootResolver) graphql.Marshaler {
		switch graphql.GetRootFieldContext(ctx).Field.Name {
		case "text":
			return graphql.MarshalString("from the middleware")
		case "other":
			return graphql.Null
		}
		return next(ctx)
	}
	data, errs := f.run(t, `{ item { id name next { id size { id } } } other { id } text }`, nil)
	if want := `{"item":{"id":"1","name":"item 1","next":{"id":"2","size":null}},"other":null,"text":"from the middleware"}`; data != want || errs != nil {
		t.Errorf("gave %s, %v", data, errs)
	}
	if want := []string{"item", "item.next"}; !slices.Equal(calls, want) {
		t.Errorf("the middleware was called for %v, want %v", calls, want)
	}
}

func TestExec_panic_of_a_hook_is_the_error_of_its_root_field(t *testing.T) {
	t.Parallel()
	f := newFixture(object{"item": item("1", "next", item("2"), "sure", item("3")), "other": item("3")})
	f.hooks.AroundLevel = func(context.Context, []any) context.Context { panic("hook") }
	data, errs := f.run(t, `{ item { next { id } sure { id } } other { id } }`, nil)
	if want := `{"item":null,"other":{"id":"3"}}`; data != want || len(errs) != 1 {
		t.Errorf("gave %s, %q", data, errs)
	}
	f.hooks.AroundLevel = func(ctx context.Context, _ []any) context.Context { return ctx }
	f.hooks.Batch = func(string, string) plan.Batch { panic("hook") }
	data, errs = f.run(t, `{ item { next { id } sure { id } } other { id } }`, nil)
	if want := `{"item":null,"other":{"id":"3"}}`; data != want || len(errs) != 1 {
		t.Errorf("gave %s, %q", data, errs)
	}
}

func TestPlan_runs_again(t *testing.T) {
	t.Parallel()
	f := newFixture(object{"items": []object{item("1"), item("2", "next", item("3"))}})
	ctx, next := f.start(t, `{ items { id next { id } } }`, nil)
	first := next(ctx).Data
	if ctx, next = f.start(t, `{ items { id next { id } } }`, nil); !bytes.Equal(next(ctx).Data, first) {
		t.Error("the second run differs")
	}
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "a", "\x00\x1f\"\\\t\r\n", "é\u2028", "\xff\xc3", "\\\xff\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		graphql.MarshalString(s).MarshalGQL(&want)
		if got := plan.AppendString(nil, s); string(got) != want.String() {
			t.Errorf("%q gave %s, want %s", s, got, want.String())
		}
	})
}
