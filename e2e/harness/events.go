package harness

import (
	"fmt"
	"testing"
	"time"
)

// ReadEvents reads a page of the event log.
const ReadEvents = `query($first: Int, $after: Cursor, $types: [EventType!], $subject: ID) {
	events(first: $first, after: $after, types: $types, subjectId: $subject) {
		edges { cursor node { id cursor type actor subjectId subjectVersion data subject { __typename id } } }
		pageInfo { hasNextPage hasPreviousPage endCursor } totalCount
	} }`

// Events returns the types of the events that the caller sees, and its last
// cursor, once the log is as long as it is meant to be.
func (c Caller) Events(t *testing.T, want int, vars map[string]any) (types []string, page any) {
	t.Helper()
	Eventually(t, fmt.Sprintf("there are %d events", want), func() bool {
		return Number(c.Do(t, ReadEvents, vars), "events", "totalCount") >= want
	})
	page = At(c.Do(t, ReadEvents, vars), "events") // again, as an answer reads its page before it counts
	for i := range At(page, "edges").([]any) {
		types = append(types, Text(page, "edges", i, "node", "type"))
		if Text(page, "edges", i, "cursor") != Text(page, "edges", i, "node", "cursor") {
			t.Errorf("edge %d has another cursor than its event", i)
		}
	}
	return types, page
}

// RefusalCode returns the code of the operation's first error, or nothing.
func (c Caller) RefusalCode(t *testing.T, query string, vars map[string]any) string {
	t.Helper()
	a, err := c.Send(t.Context(), query, vars)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Errors) == 0 {
		return ""
	}
	code, _ := a.Errors[0].Extensions["code"].(string)
	return code
}

// EventCursor returns the head of the log.
func (c Caller) EventCursor(t *testing.T) string {
	t.Helper()
	return Text(c.Do(t, `{ eventCursor }`, nil), "eventCursor")
}

// LogHead returns the cursor of the last event of a log without writers.
func (c Caller) LogHead(t *testing.T) (cursor string) {
	t.Helper()
	for range 20 { // what has just been committed gets its position a moment later
		before := cursor
		if cursor = c.EventCursor(t); cursor == before {
			break
		}
		Pause(t.Context(), 100*time.Millisecond)
	}
	return cursor
}

// LogAfter returns the cursors of the log once it holds n placed orders behind
// the cursor.
func (c Caller) LogAfter(t *testing.T, after string, orders int) (cursors []string) {
	t.Helper()
	placed := map[string]any{"after": nil, "types": []any{"ORDER_PLACED"}, "first": 1}
	Eventually(t, fmt.Sprintf("%d orders are in the log", orders), func() bool {
		return Number(c.Do(t, ReadEvents, placed), "events", "totalCount") >= orders
	})
	for more := true; more; {
		page := At(c.Do(t, ReadEvents, map[string]any{"after": after, "first": 100}), "events")
		edges, _ := At(page, "edges").([]any)
		for _, e := range edges {
			cursors = append(cursors, Text(e, "cursor"))
			after = Text(e, "cursor")
		}
		more = At(page, "pageInfo", "hasNextPage") == true
	}
	return cursors
}

// UserID returns the id of the caller.
func (c Caller) UserID(t *testing.T) string {
	t.Helper()
	return Text(c.Do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
}
