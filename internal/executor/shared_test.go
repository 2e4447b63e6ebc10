package executor_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
)

// repeatedSource is an event source that yields one event again and again.
type repeatedSource struct {
	next   executor.NextEvent
	closed bool
}

func (f *repeatedSource) Next(context.Context, func()) (executor.NextEvent, error) {
	return f.next, nil
}
func (f *repeatedSource) Close() { f.closed = true }

// sharingExecutor is an executor whose subscriptions all get the same event.
type sharingExecutor struct {
	*executor.Executor
	resolved atomic.Int64
	answer   func(ctx context.Context) (any, error) // of the field, in addition to the count
	rights   string                                 // of the next that subscribes
	opened   *repeatedSource                        // by the last that did
}

func newSharingExecutor(t *testing.T, cfg executor.Config) *sharingExecutor {
	t.Helper()
	x := &sharingExecutor{rights: "all", answer: func(context.Context) (any, error) { return 1, nil }}
	resolver := executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
		x.resolved.Add(1)
		return x.answer(ctx)
	})
	x.Executor = executorOver(t, executortest.New(nil, nil, executortest.Object{
		"ticks": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			events := make(chan any, 1)
			x.opened = &repeatedSource{next: executor.NextEvent{
				Cursor: event.Cursor{Timeline: "a", Position: 1}, Caller: &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}, ShareKey: x.rights, Deliver: func() { events <- resolver },
			}}
			executor.SetSource(ctx, x.opened)
			return events, nil
		}),
	}), cfg)
	return x
}

func (x *sharingExecutor) subscribe(t *testing.T, query string, vars map[string]any) *executor.Stream {
	t.Helper()
	op, refusal := x.Prepare(t.Context(), executor.Request{Query: query, Variables: vars})
	if refusal != nil {
		t.Fatalf("%s: %v", query, refusal.Errors)
	}
	return x.Stream(t.Context(), op)
}

func next(ctx context.Context, s *executor.Stream) *executor.Response {
	return s.Next(ctx, func() {})
}

func TestStream_shares_responses_of_equal_subscriptions_only(t *testing.T) {
	t.Parallel()
	const query = "subscription($n: Int) { ticks(upTo: $n) }"
	three := map[string]any{"n": 3}
	tests := []struct {
		name   string
		query  string
		vars   map[string]any
		rights string
		shared bool
	}{
		{"the same", query, three, "all", true},
		{"another spelling", "# a comment\nsubscription($n:Int){ticks(upTo:$n),}", three, "all", true},
		{"another variable", query, map[string]any{"n": 4}, "all", false},
		{"another name of the variable", "subscription($m: Int) { ticks(upTo: $m) }", map[string]any{"m": 3}, "all", false},
		{"another alias", "subscription($n: Int) { tocks: ticks(upTo: $n) }", three, "all", false},
		{"an operation with a name", "subscription A($n: Int) { ticks(upTo: $n) }", three, "all", false},
		{"other rights", query, three, "few", false},
		{"rights that are not shared", query, three, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := newSharingExecutor(t, executor.Config{Cursors: codec})
			first := x.subscribe(t, query, three)
			defer first.Close()
			x.rights = tt.rights
			second := x.subscribe(t, tt.query, tt.vars)
			defer second.Close()
			a, b := next(t.Context(), first), next(t.Context(), second)
			if shared := a == b; shared != tt.shared || x.resolved.Load() != map[bool]int64{true: 1, false: 2}[shared] {
				t.Errorf("shared %v, and resolved %d times, want shared %v", shared, x.resolved.Load(), tt.shared)
			}
			text, _ := executor.ResponseCursor(a.Response)
			if at, err := codec.Decode(text); err != nil || at.String() != "a.1" || text == "a.1" {
				t.Errorf("the response has the cursor %q, which is %v, %v, want a.1", text, at, err)
			}
		})
	}
}

func TestStream_shares_for_a_second_and_shares_no_errors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newSharingExecutor(t, executor.Config{})
		first, second := x.subscribe(t, "subscription{ticks}", nil), x.subscribe(t, "subscription{ticks}", nil)
		defer second.Close()
		old := next(t.Context(), first)
		time.Sleep(time.Second)
		if next(t.Context(), second) == old {
			t.Error("a response is shared that is a second old")
		}
		time.Sleep(time.Second)
		x.answer = func(context.Context) (any, error) { return nil, errors.New("broken") }
		if a, b := next(t.Context(), first), next(t.Context(), second); a == b || len(a.Errors) != 1 || len(b.Errors) != 1 {
			t.Errorf("failed responses are %+v and %+v, want one each", a.Response, b.Response)
		}
		first.Close()
		if n := x.resolved.Load(); next(t.Context(), second) == nil || x.resolved.Load() != n+1 {
			t.Error("a subscriber without an equal gets another response than its own")
		}
	})
}

func TestStream_refuses_large_responses_and_goes_on(t *testing.T) {
	t.Parallel()
	x := newSharingExecutor(t, executor.Config{Cursors: codec, Limits: executor.Limits{Response: 100}})
	first, second := x.subscribe(t, "subscription{ticks}", nil), x.subscribe(t, "subscription{ticks}", nil)
	defer first.Close()
	defer second.Close()
	x.answer = func(context.Context) (any, error) { return strings.Repeat("x", 100), nil }
	for _, s := range []*executor.Stream{first, second} {
		resp := next(t.Context(), s)
		if len(resp.Errors) != 1 || resp.Errors[0].Extensions["code"] != string(fault.ResponseTooLarge) || resp.Data != nil {
			t.Errorf("Next = %s %v, want only %s", resp.Data, resp.Errors, fault.ResponseTooLarge)
		}
		text, _ := executor.ResponseCursor(resp.Response)
		if at, err := codec.Decode(text); err != nil || at.String() != "a.1" {
			t.Errorf("the refusal has the cursor %q, which is %v, %v, want a.1", text, at, err)
		}
	}
	x.answer = func(context.Context) (any, error) { return 1, nil }
	if resp := next(t.Context(), first); string(resp.Data) != `{"ticks":1}` {
		t.Errorf("the next response is %s %v, want {\"ticks\":1}", resp.Data, resp.Errors)
	}
}

func TestStream_waits_for_the_first_subscriber_even_if_it_leaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newSharingExecutor(t, executor.Config{})
		first, second := x.subscribe(t, "subscription{ticks}", nil), x.subscribe(t, "subscription{ticks}", nil)
		defer first.Close()
		defer second.Close()
		x.answer = func(ctx context.Context) (any, error) {
			time.Sleep(time.Second / 2)
			return 7, ctx.Err()
		}
		ctx, leave := context.WithCancel(t.Context())
		results := make(chan *executor.Response, 2)
		go func() { results <- next(ctx, first) }()
		synctest.Wait()
		go func() { results <- next(t.Context(), second) }()
		synctest.Wait()
		leave()
		a, b := <-results, <-results
		if a != b || string(a.Data) != `{"ticks":7}` || x.resolved.Load() != 1 {
			t.Errorf("responses are %+v and %+v, resolved %d times, want one", a, b, x.resolved.Load())
		}
	})
}

func TestStream_bounds_the_bytes_it_keeps(t *testing.T) {
	t.Parallel()
	x := newSharingExecutor(t, executor.Config{SharedBytes: 1000})
	first := x.subscribe(t, "subscription{ticks}", nil)
	defer first.Close()
	one := x.opened
	second := x.subscribe(t, "subscription{ticks}", nil)
	defer second.Close()
	for p := range event.Position(100) {
		one.next.Cursor.Position = p
		next(t.Context(), first)
	}
	for _, tt := range []struct{ at, made event.Position }{{99, 100}, {0, 101}} {
		x.opened.next.Cursor.Position = tt.at
		if next(t.Context(), second); x.resolved.Load() != int64(tt.made) {
			t.Errorf("at %d responses were made %d times, want %d", tt.at, x.resolved.Load(), tt.made)
		}
	}
}
