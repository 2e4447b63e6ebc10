package graph_test

import (
	"slices"
	"testing"

	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// eventIDs returns the ids of a page of events, and whether there are more on the side that it
// leads to.
func (s *server) eventIDs(t *testing.T, query string, vars map[string]any) (ids []string, cursor any, more bool) {
	t.Helper()
	events := s.ask(t, staff, query, vars)["events"].(map[string]any)
	for _, n := range events["nodes"].([]any) {
		ids = append(ids, n.(map[string]any)["id"].(string))
	}
	info := events["pageInfo"].(map[string]any)
	return ids, info["cursor"], info["more"].(bool)
}

func TestEvents_page_both_ways(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 3, Orders: 4, Lines: 1})
		var forwards, backwards []string
		for cursor, more := any(nil), true; more; {
			var ids []string
			ids, cursor, more = s.eventIDs(t, `query($at: Cursor) { events(first: 3, after: $at) { nodes { id } pageInfo { cursor: endCursor more: hasNextPage } } }`, map[string]any{"at": cursor})
			forwards = append(forwards, ids...)
		}
		for cursor, more := any(nil), true; more; {
			var ids []string
			ids, cursor, more = s.eventIDs(t, `query($at: Cursor) { events(last: 3, before: $at) { nodes { id } pageInfo { cursor: startCursor more: hasPreviousPage } } }`, map[string]any{"at": cursor})
			backwards = append(ids, backwards...)
		}
		if len(forwards) < 10 || !slices.Equal(forwards, backwards) {
			t.Errorf("forwards %v\nbackwards %v, want the same events", forwards, backwards)
		}
		if got := s.run(t, staff, `{ events(types: []) { nodes { id } totalCount } }`, nil); got != `{"events":{"nodes":[],"totalCount":0}}` {
			t.Errorf("events of no type: %s, want none", got)
		}
	})
}
