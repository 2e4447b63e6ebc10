package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/go-cmp/cmp"
	"github.com/vektah/gqlparser/v2/ast"
)

// source is a bulk read of squares. It notes what it is asked for.
type source struct {
	mu    sync.Mutex
	asked [][]int
	fail  error
	block chan struct{} // if not nil, reads wait for its end
}

func (s *source) read(ctx context.Context, keys []int) (map[int]int, error) {
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, keys)
	if s.fail != nil {
		return nil, s.fail
	}
	found := map[int]int{}
	for _, k := range keys {
		if k >= 0 {
			found[k] = k * k
		}
	}
	return found, nil
}

func (s *source) loader(held memoryRead[int, int]) *Loader[int, int] {
	return newLoader(func(*Domains) (bulkRead[int, int], memoryRead[int, int]) { return s.read, held })
}

func loading(t *testing.T) context.Context {
	t.Helper()
	return WithLoaders(t.Context(), New(Domains{}))
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestLoader_reads_a_key_once(t *testing.T) {
	t.Parallel()
	var s source
	l, ctx := s.loader(nil), loading(t)
	for range 2 {
		found, err := l.LoadAll(ctx, []int{3, 4, 3, -1})
		if diff := cmp.Diff(map[int]int{3: 9, 4: 16}, found); diff != "" || err != nil {
			t.Errorf("LoadAll gave %v (-want +got):\n%s", err, diff)
		}
	}
	if v, err := l.Load(ctx, 4); v != 16 || err != nil {
		t.Errorf("Load = %d, %v, want 16", v, err)
	}
	if diff := cmp.Diff([][]int{{3, 4, -1}}, s.asked); diff != "" {
		t.Errorf("what was read (-want +got):\n%s", diff)
	}
	if v, err := l.Load(loading(t), 4); v != 16 || err != nil || len(s.asked) != 2 {
		t.Errorf("another response got %d, %v with %d reads, want a read of its own", v, err, len(s.asked))
	}
}

func TestLoader_reads_at_most_maxBatch_keys_at_a_time(t *testing.T) {
	t.Parallel()
	var s source
	keys := numbers(2*maxBatch + 1)
	found, err := s.loader(nil).LoadAll(loading(t), keys)
	if len(found) != len(keys) || err != nil {
		t.Errorf("LoadAll found %d of %d, %v", len(found), len(keys), err)
	}
	if len(s.asked) != 3 || len(s.asked[0]) != maxBatch || len(s.asked[2]) != 1 {
		t.Errorf("%d reads, want 3 of which the last is for one key", len(s.asked))
	}
}

func TestLoader_takes_values_from_memory_at_once(t *testing.T) {
	t.Parallel()
	s := source{block: make(chan struct{})} // a read would never end
	l := s.loader(func(_ context.Context, k int) (int, bool) { return -k, k < 10 })
	if v, err := l.Load(loading(t), 7); v != -7 || err != nil {
		t.Errorf("Load = %d, %v, want what is held", v, err)
	}
	close(s.block)
	found, err := l.LoadAll(loading(t), []int{9, 10})
	if diff := cmp.Diff(map[int]int{9: -9, 10: 100}, found); diff != "" || err != nil {
		t.Errorf("LoadAll gave %v (-want +got):\n%s", err, diff)
	}
	if diff := cmp.Diff([][]int{{10}}, s.asked); diff != "" {
		t.Errorf("what was read (-want +got):\n%s", diff)
	}
}

func TestLoader_caches_no_error(t *testing.T) {
	t.Parallel()
	s := source{fail: errors.New("no")}
	l, ctx := s.loader(nil), loading(t)
	if _, err := l.Load(ctx, 3); !errors.Is(err, s.fail) {
		t.Errorf("Load gave %v, want the error of the read", err)
	}
	s.fail = nil
	if v, err := l.Load(ctx, 3); v != 9 || err != nil {
		t.Errorf("Load after an error = %d, %v, want 9", v, err)
	}
}

func TestLoader_turns_a_panic_into_an_error(t *testing.T) {
	t.Parallel()
	l := newLoader(func(*Domains) (bulkRead[int, int], memoryRead[int, int]) {
		return func(context.Context, []int) (map[int]int, error) { panic("oh") }, nil
	})
	if _, err := l.Load(loading(t), 1); err == nil {
		t.Error("a read that panics gave no error")
	}
}

func TestLoader_outlives_the_caller_that_started_it(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source{block: make(chan struct{})}
		l, ctx := s.loader(nil), loading(t)
		first, leave := context.WithCancel(ctx)
		errs := make(chan error, 2)
		go func() { _, err := l.Load(first, 3); errs <- err }()
		synctest.Wait()
		go func() { _, err := l.Load(ctx, 3); errs <- err }()
		leave()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v, want its cancellation, at once", err)
		}
		close(s.block)
		if err := <-errs; err != nil || len(s.asked) != 1 {
			t.Errorf("the caller that stayed got %v after %d reads, want the value of the one read", err, len(s.asked))
		}
	})
}

func TestLoader_ends_with_the_time_limit_of_the_response(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := source{block: make(chan struct{})}
		ctx, cancel := context.WithTimeout(loading(t), time.Second)
		defer cancel()
		if _, err := s.loader(nil).Load(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Load gave %v, want the end of the time", err)
		}
		synctest.Wait() // a read that goes on would be found blocked for ever
	})
}

// thing is an object of a list.
type thing struct{ n int }

// resolve runs a resolver as the executor does, for a field with an alias.
func resolve[T any](ctx context.Context, alias string, resolver func(context.Context) (T, error)) (T, context.Context, error) {
	below := ctx
	fc := &graphql.FieldContext{Object: "Thing", IsResolver: true, Field: graphql.CollectedField{Field: &ast.Field{Alias: alias}}}
	v, err := ResolveField(graphql.WithFieldContext(ctx, fc), func(ctx context.Context) (any, error) {
		below = ctx //nolint:fatcontext // it is what the test wants to see
		return resolver(ctx)
	})
	t, _ := v.(T)
	return t, below, err
}

// list resolves a field that leads to n things and returns them, and the context
// in which their fields are resolved.
func listOf(t *testing.T, ctx context.Context, n int) ([]*thing, context.Context) { //nolint:revive // t first, as everywhere
	t.Helper()
	things, below, _ := resolve(ctx, "things", func(context.Context) ([]*thing, error) {
		var all []*thing
		for i := range n {
			all = append(all, &thing{i})
		}
		return all, nil
	})
	return things, below
}

func TestEdge_reads_for_all_siblings(t *testing.T) {
	t.Parallel()
	var s source
	e := newEdge(s.loader(nil), func(t *thing) int { return t.n })
	things, below := listOf(t, loading(t), 50)
	var wg sync.WaitGroup
	for _, th := range slices.Backward(things) {
		wg.Go(func() {
			v, _, err := resolve(below, "square", func(ctx context.Context) (int, error) { return e.Load(ctx, th) })
			if v != th.n*th.n || err != nil {
				t.Errorf("the edge of %d leads to %d, %v", th.n, v, err)
			}
		})
	}
	wg.Wait()
	if len(s.asked) != 1 || len(s.asked[0]) != 50 {
		t.Errorf("%d reads, want one of all siblings", len(s.asked))
	}
}

func TestEdge_of_an_object_without_siblings_reads_its_own(t *testing.T) {
	t.Parallel()
	var s source
	e := newEdge(s.loader(nil), func(t *thing) int { return t.n })
	_, below := listOf(t, loading(t), 3)
	for name, ctx := range map[string]context.Context{"on no level": loading(t), "on a level that it is no part of": below} {
		v, _, err := resolve(ctx, "square", func(ctx context.Context) (int, error) { return e.Load(ctx, &thing{9}) })
		if v != 81 || err != nil {
			t.Errorf("%s: the edge leads to %d, %v, want 81", name, v, err)
		}
	}
}

func TestEdge_of_an_edge_reads_for_the_children_of_all_parents(t *testing.T) {
	t.Parallel()
	var s source
	children := newLoader(func(*Domains) (bulkRead[int, []*thing], memoryRead[int, []*thing]) {
		return func(_ context.Context, keys []int) (map[int][]*thing, error) {
			found := map[int][]*thing{}
			for _, k := range keys {
				found[k] = []*thing{{k * 10}, {k*10 + 1}}
			}
			return found, nil
		}, nil
	})
	down, square := newListEdge(children, func(t *thing) int { return t.n }), newEdge(s.loader(nil), func(t *thing) int { return t.n })
	things, below := listOf(t, loading(t), 3)
	for _, parent := range things {
		kids, ctx, err := resolve(below, "kids", func(ctx context.Context) ([]*thing, error) { return down.Load(ctx, parent) })
		if err != nil || len(kids) != 2 {
			t.Fatalf("the children of %d are %v, %v", parent.n, kids, err)
		}
		for _, kid := range kids {
			if v, _, err := resolve(ctx, "square", func(ctx context.Context) (int, error) { return square.Load(ctx, kid) }); v != kid.n*kid.n || err != nil {
				t.Errorf("the edge of %d leads to %d, %v", kid.n, v, err)
			}
		}
	}
	if len(s.asked) != 1 || len(s.asked[0]) != 6 {
		t.Errorf("what was read for the children: %v, want all six at once", s.asked)
	}
}

func TestEdge_returns_an_error_to_every_sibling(t *testing.T) {
	t.Parallel()
	s := source{fail: errors.New("no")}
	e := newEdge(s.loader(nil), func(t *thing) int { return t.n })
	things, below := listOf(t, loading(t), 3)
	for _, th := range things {
		if _, _, err := resolve(below, "square", func(ctx context.Context) (int, error) { return e.Load(ctx, th) }); !errors.Is(err, s.fail) {
			t.Errorf("the edge of %d gave %v", th.n, err)
		}
	}
	if len(s.asked) != 1 {
		t.Errorf("%d reads, want one", len(s.asked))
	}
	if _, _, err := resolve(below, "again", func(ctx context.Context) (int, error) { s.fail = nil; return e.Load(ctx, things[0]) }); err != nil {
		t.Errorf("another field got the error of the first: %v", err)
	}
}

func BenchmarkLoader(b *testing.B) {
	ctx := b.Context()
	read := func(_ context.Context, keys []int) (map[int]*thing, error) {
		found := make(map[int]*thing, len(keys))
		for _, k := range keys {
			found[k] = &thing{k}
		}
		return found, nil
	}
	one := &thing{1}
	hit := newLoader(func(*Domains) (bulkRead[int, *thing], memoryRead[int, *thing]) {
		return read, func(context.Context, int) (*thing, bool) { return one, true }
	})
	miss := newLoader(func(*Domains) (bulkRead[int, *thing], memoryRead[int, *thing]) { return read, nil })
	for _, bb := range []struct {
		name string
		l    *Loader[int, *thing]
		keys int
	}{{"hit", hit, 1}, {"miss", miss, 1}, {"hit", hit, 100}, {"miss", miss, 100}, {"miss", miss, 2000}} {
		b.Run(fmt.Sprintf("%s of %d", bb.name, bb.keys), func(b *testing.B) {
			b.ReportAllocs()
			keys := numbers(bb.keys)
			for b.Loop() {
				if _, err := bb.l.LoadAll(WithLoaders(ctx, New(Domains{})), keys); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
