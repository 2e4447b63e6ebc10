package executor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

func userContext(ctx context.Context, id string) context.Context {
	return auth.With(ctx, &auth.Principal{UserID: uid.User(id)})
}

func TestRun_bounds_the_cost_of_what_one_caller_has_under_way(t *testing.T) {
	t.Parallel()
	started, end := make(chan string), make(chan struct{})
	wait := executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
		started <- string(auth.From(ctx).UserID)
		<-end
		return "done", nil
	})
	x := executorOver(t, executortest.New(executortest.Object{"wait": wait}, nil, nil), executor.Config{Limits: executor.Limits{Complexity: 10}})
	run := func(user, query string) chan error {
		done := make(chan error, 1)
		ctx := userContext(t.Context(), user)
		op, refusal := x.Prepare(ctx, executor.Request{Query: query})
		if refusal != nil {
			t.Fatal(refusal.Errors)
		}
		go func() {
			_, err := x.Run(ctx, op)
			done <- err
		}()
		return done
	}
	expensive := "{wait wait2:wait wait3:wait}" // costs more than the share of 2, and so runs alone
	first := run("a", expensive)
	<-started
	second := run("a", "{wait}")
	other := run("b", "{wait}")
	if user := <-started; user != "b" {
		t.Errorf("an operation of %s began, want that of another caller", user)
	}
	ctx, cancel := context.WithTimeout(userContext(t.Context(), "a"), 20*time.Millisecond)
	defer cancel()
	op, refusal := x.Prepare(ctx, executor.Request{Query: "{wait}"})
	if refusal != nil {
		t.Fatal(refusal.Errors)
	}
	if _, err := x.Run(ctx, op); !fault.Is(err, fault.RateLimited) {
		t.Errorf("Run beside an operation that takes the share = %v, want RATE_LIMITED", err)
	}
	go func() {
		for range started { // the rest of them
		}
	}()
	close(end)
	for _, done := range []chan error{first, second, other} {
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
}

// TestPrepare_parses_the_documents_of_a_caller_one_after_the_other has one caller send large documents, and
// expects a small one of it to wait, and one of another caller not to.
func TestPrepare_parses_the_documents_of_a_caller_one_after_the_other(t *testing.T) {
	t.Parallel()
	x := newExecutor(t, executor.Config{})
	large := func(n int) string {
		return fmt.Sprintf("{a%d:echo(list:[%s])}", n, strings.Repeat("1 ", 9000))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for n := range 200 {
		go x.Prepare(userContext(ctx, "a"), executor.Request{Query: large(n)})
	}
	if _, refusal := x.Prepare(userContext(t.Context(), "a"), executor.Request{Query: large(1000)}); refusal != nil {
		t.Errorf("Prepare = %v", refusal.Errors)
	}
	short, stop := context.WithTimeout(userContext(t.Context(), "a"), time.Millisecond)
	defer stop()
	if _, refusal := x.Prepare(short, executor.Request{Query: "{late:hello}"}); refusal == nil || refusal.Errors[0].Extensions["code"] != string(fault.RateLimited) {
		t.Errorf("Prepare behind 200 large documents of the caller = %v, want RATE_LIMITED", refusal)
	}
	if _, refusal := x.Prepare(userContext(t.Context(), "b"), executor.Request{Query: "{other:hello}"}); refusal != nil {
		t.Errorf("Prepare of another caller = %v", refusal.Errors)
	}
}
