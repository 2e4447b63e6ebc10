package executor_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
)

// sentResponse is what a client gets of a response.
type sentResponse struct {
	Data, Cursor string
	CursorOnly   bool
}

func TestResponseCursor_is_the_first_that_a_response_sets(t *testing.T) {
	t.Parallel()
	withCursor := func(ctx context.Context, _ map[string]any) (any, error) {
		executor.SetResponseCursor(ctx, "c1")
		executor.SetResponseCursor(ctx, "the second call does not count")
		return 1, nil
	}
	ticks := executortest.Object{"ticks": []any{1, executortest.Resolver(withCursor), 2}}
	got := responsesOf(t, executortest.New(nil, nil, ticks), 4)
	want := []sentResponse{{Data: `{"ticks":1}`}, {Data: `{"ticks":1}`, Cursor: "c1"}, {Data: `{"ticks":2}`}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("responses (-want +got):\n%s", diff)
	}
}

var codec = cursor.NewRandomCodec()

// cursorSource yields a cursor without an event, then ends.
type cursorSource struct{ cursors []event.Cursor }

func (s *cursorSource) Next(ctx context.Context, _ func()) (executor.NextEvent, error) {
	if len(s.cursors) == 0 {
		return executor.NextEvent{}, context.Canceled
	}
	next := executor.NextEvent{Cursor: s.cursors[0]}
	s.cursors = s.cursors[1:]
	return next, nil
}

func (s *cursorSource) Close() {}

func TestStream_sends_a_cursor_alone_when_there_is_no_event(t *testing.T) {
	t.Parallel()
	at := event.Cursor{Timeline: "t", Position: 7}
	schema := executortest.New(nil, nil, executortest.Object{
		"ticks": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			executor.SetSource(ctx, &cursorSource{[]event.Cursor{at}})
			return make(chan any), nil
		}),
	})
	want := []sentResponse{{Cursor: codec.Encode(at), CursorOnly: true}}
	if diff := cmp.Diff(want, responsesOf(t, schema, 1)); diff != "" {
		t.Errorf("responses (-want +got):\n%s", diff)
	}
}

// responsesOf returns at most n responses of the subscription to ticks.
func responsesOf(t *testing.T, schema *executortest.Schema, n int) []sentResponse {
	t.Helper()
	x, err := executor.New(schema, executor.Config{Cursors: codec}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	op, refusal := x.Prepare(t.Context(), executor.Request{Query: "subscription{ticks}"})
	if refusal != nil {
		t.Fatal(refusal.Errors)
	}
	stream := x.Stream(t.Context(), op)
	defer stream.Close()
	var got []sentResponse
	for range n {
		resp := stream.Next(t.Context(), func() {})
		if resp == nil {
			break
		}
		at, only := executor.ResponseCursor(resp.Response)
		got = append(got, sentResponse{string(resp.Data), at, only})
	}
	return got
}
