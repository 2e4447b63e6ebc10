package executor_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
)

func TestCursor(t *testing.T) {
	t.Parallel()
	note := func(how func(context.Context, string), cursor string) executortest.Resolver {
		return func(ctx context.Context, _ map[string]any) (any, error) {
			how(ctx, cursor)
			how(ctx, "the second call does not count")
			return 1, nil
		}
	}
	items := []any{1, note(executor.NoteCursor, "c1"), note(executor.NoteProgress, "c2"), 2}
	x, err := executor.New(executortest.New(nil, nil, executortest.Object{"ticks": items}), executor.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	op, refusal := x.Prepare(t.Context(), executor.Request{Query: "subscription{ticks}"})
	if refusal != nil {
		t.Fatal(refusal.Errors)
	}
	responses := x.Stream(t.Context(), op)
	defer responses.Close()
	for i, want := range []struct {
		data, cursor string
		only         bool
	}{{`{"ticks":1}`, "", false}, {`{"ticks":1}`, "c1", false}, {"", "c2", true}, {`{"ticks":2}`, "", false}} {
		resp := responses.Next(t.Context(), func() {})
		cursor, only := executor.Cursor(resp.Response)
		if string(resp.Data) != want.data || cursor != want.cursor || only != want.only {
			t.Errorf("response %d = %s with cursor %q, only %v, want %+v", i, resp.Data, cursor, only, want)
		}
	}
	if resp := responses.Next(t.Context(), func() {}); resp != nil {
		t.Errorf("after the last response = %+v, want nil", resp)
	}
}
