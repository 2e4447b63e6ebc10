package executor_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

func echoSchema(see func(args map[string]any)) *executortest.Schema {
	return executortest.New(executortest.Object{
		"hello": "hi",
		"echo": executortest.Resolver(func(_ context.Context, args map[string]any) (any, error) {
			see(args)
			return nil, nil
		}),
	}, nil, nil)
}

// failing is a schema whose field fail fails with err.
func failing(err error) *executortest.Schema {
	fail := executortest.Resolver(func(context.Context, map[string]any) (any, error) { return nil, err })
	var many []any
	for range 500 {
		many = append(many, executortest.Object{"fail": fail})
	}
	return executortest.New(executortest.Object{
		"fail": fail, "many": many, "hello": "hi",
		"panic": executortest.Resolver(func(context.Context, map[string]any) (any, error) { panic("secret panic") }),
		"wait": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
	}, nil, nil)
}

func mustRun(ctx context.Context, t *testing.T, x *executor.Executor, op *executor.Operation) *graphql.Response {
	t.Helper()
	resp, err := x.Run(ctx, op)
	if err != nil {
		t.Fatalf("Run = %v", err)
	}
	return resp
}

func run(t *testing.T, x *executor.Executor, query string) *graphql.Response {
	t.Helper()
	op, refusal := x.Prepare(t.Context(), executor.Request{Query: query})
	if refusal != nil {
		t.Fatalf("Prepare(%s) = %v", query, refusal.Errors)
	}
	return mustRun(t.Context(), t, x, op)
}

func TestRun_presents_errors(t *testing.T) {
	t.Parallel()
	retry := fault.New(fault.RateLimited, "Too often.")
	retry.RetryAfter = 1500 * time.Millisecond
	tests := []struct {
		name string
		err  error
		want string // of the errors, as JSON
	}{
		{"a fault shows its message, code and path",
			fmt.Errorf("update: %w", fault.New(order.CodeSKUInvalid, "No.").At("input", "sku").Because(errors.New("secret"))),
			`[{"message":"No.","path":["fail"],"extensions":{"code":"SKU_INVALID","path":["input","sku"]}}]`},
		{"a fault says when to come back", retry,
			`[{"message":"Too often.","path":["fail"],"extensions":{"code":"RATE_LIMITED","retryAfter":2}}]`},
		{"anything else is a fixed sentence with the request's id", errors.New("secret: pq: syntax error"),
			`[{"message":"Something went wrong on our side.","path":["fail"],"extensions":{"code":"INTERNAL","requestId":"r1"}}]`},
		{"a deadline is a timeout", context.DeadlineExceeded,
			`[{"message":"The request took too long and was stopped.","path":["fail"],"extensions":{"code":"TIMEOUT"}}]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := executorOver(t, failing(tt.err), executor.Config{})
			op, _ := x.Prepare(t.Context(), executor.Request{Query: "{fail hello}"})
			resp := mustRun(requestlog.WithRequestID(t.Context(), "r1"), t, x, op)
			got, err := json.Marshal(resp.Errors)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("errors (-want +got): %s", diff)
			}
			if want := `{"fail":null,"hello":"hi"}`; string(resp.Data) != want {
				t.Errorf("data = %s, want %s", resp.Data, want)
			}
		})
	}
}

func TestRun_logs_an_internal_error_once(t *testing.T) {
	t.Parallel()
	for query, secret := range map[string]string{"{many{fail}}": "secret cause", "{panic}": "secret panic"} {
		var logged bytes.Buffer
		x, err := executor.New(failing(errors.New("secret cause")), executor.Config{}, slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Fatal(err)
		}
		resp := run(t, x, query)
		if n := strings.Count(logged.String(), secret); n != 1 {
			t.Errorf("the log names the cause %d times, want once: %s", n, logged.String())
		}
		if text := fmt.Sprint(resp.Errors); strings.Contains(text, "secret") || strings.Contains(text, "goroutine") {
			t.Errorf("the response names the cause: %s", text)
		}
	}
}

func TestRun_bounds_errors(t *testing.T) {
	t.Parallel()
	x := executorOver(t, failing(fault.New(fault.Forbidden, "No.")), executor.Config{Limits: executor.Limits{Errors: 7}})
	resp := run(t, x, "{many{fail}}")
	if len(resp.Errors) != 8 || resp.Errors[7].Extensions["code"] != string(fault.TooManyErrors) {
		t.Errorf("errors = %v, want 7 and %s", resp.Errors, fault.TooManyErrors)
	}
}

func TestRun_ends_after_its_time_limit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := executorOver(t, failing(nil), executor.Config{Limits: executor.Limits{Time: time.Minute}})
		start := time.Now()
		resp := run(t, x, "{wait}")
		if len(resp.Errors) != 1 || resp.Errors[0].Extensions["code"] != string(fault.Timeout) || time.Since(start) != time.Minute {
			t.Errorf("Run = %v after %s, want %s after a minute", resp.Errors, time.Since(start), fault.Timeout)
		}
	})
}

func TestRun_refuses_large_responses(t *testing.T) {
	t.Parallel()
	x := executorOver(t, failing(nil), executor.Config{Limits: executor.Limits{Response: 100}})
	resp := run(t, x, "{many{fail}}")
	if len(resp.Errors) != 1 || resp.Errors[0].Extensions["code"] != string(fault.ResponseTooLarge) || resp.Data != nil {
		t.Errorf("Run = %s %v, want only %s", resp.Data, resp.Errors, fault.ResponseTooLarge)
	}
}

func TestRun_calls_hooks(t *testing.T) {
	t.Parallel()
	var calls []string
	x := executorOver(t, failing(nil), executor.Config{
		AroundResponse: func(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
			calls = append(calls, "response")
			return next(ctx)
		},
		AroundField: func(ctx context.Context, next graphql.Resolver) (any, error) {
			calls = append(calls, "field "+graphql.GetFieldContext(ctx).Field.Name)
			return next(ctx)
		},
	})
	run(t, x, "{fail}")
	if diff := cmp.Diff([]string{"response", "field fail"}, calls); diff != "" {
		t.Errorf("hooks called (-want +got): %s", diff)
	}
	panics := executorOver(t, failing(nil), executor.Config{
		AroundResponse: func(context.Context, graphql.ResponseHandler) *graphql.Response { panic("secret") },
	})
	if resp := run(t, panics, "{fail}"); len(resp.Errors) != 1 || resp.Errors[0].Extensions["code"] != string(fault.Internal) {
		t.Errorf("Run with a hook that panics = %v, want %s", resp.Errors, fault.Internal)
	}
}

func TestStream_yields_each_event(t *testing.T) {
	t.Parallel()
	s := executortest.New(nil, nil, executortest.Object{"ticks": []any{1, 2}})
	x := executorOver(t, s, executor.Config{})
	op, refusal := x.Prepare(t.Context(), executor.Request{Query: "subscription{ticks}"})
	if refusal != nil {
		t.Fatal(refusal.Errors)
	}
	stream := x.Stream(t.Context(), op)
	defer stream.Close()
	next := func() *executor.Response { return stream.Next(t.Context(), func() {}) }
	var got []string
	for resp := next(); resp != nil; resp = next() {
		got = append(got, string(resp.Data))
	}
	if diff := cmp.Diff([]string{`{"ticks":1}`, `{"ticks":2}`}, got); diff != "" {
		t.Errorf("responses (-want +got): %s", diff)
	}
	if resp := mustRun(t.Context(), t, x, op); len(resp.Errors) != 1 {
		t.Errorf("Run of a subscription = %+v, want an error", resp)
	}
}

func TestPrepare_serves_persisted_queries(t *testing.T) {
	t.Parallel()
	const query = "{hello}"
	sum := sha256.Sum256([]byte(query))
	hash := hex.EncodeToString(sum[:])
	ext := func(version, hash string) map[string]any {
		return map[string]any{"persistedQuery": map[string]any{"version": json.Number(version), "sha256Hash": hash}}
	}
	x := newExecutor(t, executor.Config{})
	steps := []struct {
		name string
		req  executor.Request
		want string
	}{
		{"an unknown hash is not found", executor.Request{Extensions: ext("1", hash)}, string(fault.PersistedQueryNotFound)},
		{"a hash of something else is refused", executor.Request{Query: "{__typename}", Extensions: ext("1", hash)}, string(fault.PersistedQueryMismatch)},
		{"another version is refused", executor.Request{Query: query, Extensions: ext("2", hash)}, string(fault.BadRequest)},
		{"a hash that is none is refused", executor.Request{Query: query, Extensions: ext("1", "x")}, string(fault.BadRequest)},
		{"none of these was kept", executor.Request{Extensions: ext("1", hash)}, string(fault.PersistedQueryNotFound)},
		{"a text with its hash is kept", executor.Request{Query: query, Extensions: ext("1", hash)}, "accepted"},
		{"then the hash is enough", executor.Request{Extensions: ext("1", strings.ToUpper(hash))}, "accepted"},
		{"other extensions are ignored", executor.Request{Query: query, Extensions: map[string]any{"other": 1}}, "accepted"},
	}
	for _, s := range steps {
		if _, refusal := x.Prepare(t.Context(), s.req); outcome(refusal) != s.want {
			t.Errorf("%s: Prepare = %s, want %s", s.name, outcome(refusal), s.want)
		}
	}
}

func TestPrepare_stores_no_invalid_query(t *testing.T) {
	t.Parallel()
	const query = "{helo}"
	sum := sha256.Sum256([]byte(query))
	ext := map[string]any{"persistedQuery": map[string]any{"version": json.Number("1"), "sha256Hash": hex.EncodeToString(sum[:])}}
	x := newExecutor(t, executor.Config{})
	for _, want := range []fault.Code{fault.GraphQLValidationFailed, fault.PersistedQueryNotFound} {
		_, refusal := x.Prepare(t.Context(), executor.Request{Query: map[fault.Code]string{fault.GraphQLValidationFailed: query}[want], Extensions: ext})
		if outcome(refusal) != string(want) {
			t.Errorf("Prepare = %s, want %s", outcome(refusal), want)
		}
	}
}

func TestCheckIdempotencyKey_accepts_printable_ASCII(t *testing.T) {
	t.Parallel()
	for key, ok := range map[string]bool{"": false, "a": true, "with space": true, repeat(200, "k"): true, repeat(201, "k"): false, "ä": false, "a\n": false} {
		if err := executor.CheckIdempotencyKey(key); (err == nil) != ok {
			t.Errorf("CheckIdempotencyKey(%q) = %v, want ok = %t", key, err, ok)
		}
	}
	if got := executor.IdempotencyKey(executor.WithIdempotencyKey(t.Context(), "k")); got != "k" {
		t.Errorf("IdempotencyKey = %q, want k", got)
	}
}

// TestRun_ends_a_large_response_before_it_is_in_memory counts the fields that are resolved.
func TestRun_ends_a_large_response_before_it_is_in_memory(t *testing.T) {
	t.Parallel()
	const users, limit = 1000, 10_000
	var resolved atomic.Int32
	nodes := make([]any, users)
	for i := range nodes {
		nodes[i] = executortest.Object{"name": executortest.Resolver(func(context.Context, map[string]any) (any, error) {
			resolved.Add(1)
			return strings.Repeat("x", 1000), nil
		})}
	}
	s := executortest.New(executortest.Object{"users": executortest.Object{"nodes": nodes}}, nil, nil)
	for name, ctx := range map[string]context.Context{
		"RESPONSE_TOO_LARGE": t.Context(),
		"RATE_LIMITED":       membudget.WithGrant(t.Context(), fullGrant(t)),
	} {
		resolved.Store(0)
		x := executorOver(t, s, executor.Config{Limits: executor.Limits{Response: map[string]int{"RESPONSE_TOO_LARGE": limit}[name]}})
		op, refusal := x.Prepare(ctx, executor.Request{Query: "{users{nodes{name}}}"})
		if refusal != nil {
			t.Fatal(refusal.Errors)
		}
		resp := mustRun(ctx, t, x, op)
		if len(resp.Errors) != 1 || resp.Errors[0].Extensions["code"] != name || resp.Data != nil {
			t.Errorf("Run = %d bytes, %v, want only %s", len(resp.Data), resp.Errors, name)
		}
		if n := resolved.Load(); n > users/2 {
			t.Errorf("%s: %d fields were resolved, want the first that are too much", name, n)
		}
	}
}

// fullGrant returns a grant with as many bytes as the operation of the test needs before its
// texts, and hardly more.
func fullGrant(t *testing.T) *membudget.Grant {
	t.Helper()
	b := membudget.New(16<<20, time.Second)
	other := b.Open(t.Context())
	if err := other.Take(t.Context(), b.Caller()-200<<10); err != nil {
		t.Fatal(err)
	}
	return b.Open(t.Context())
}
