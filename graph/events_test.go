package graph_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
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

// listed is an event as a list shows it.
type listed struct {
	ID         string
	Actor      string
	OccurredAt string
}

func (s *server) listEvents(t *testing.T, as *auth.Principal, arguments string, vars map[string]any) (all []listed, total int) {
	t.Helper()
	text := s.run(t, as, `query($actor: ID, $since: DateTime, $until: DateTime, $subject: ID) {
		events(actor: $actor, since: $since, until: $until, subjectId: $subject, `+arguments+`) { totalCount nodes { id actor occurredAt } } }`, vars)
	var answer struct {
		Events struct {
			TotalCount int
			Nodes      []listed
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("events(%s) with %v: %s", arguments, vars, text)
	}
	return answer.Events.Nodes, answer.Events.TotalCount
}

func TestEvents_by_actor_and_time(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.fill(t, demo.Size{Users: 3, Orders: 8, Lines: 1})
		all, total := s.listEvents(t, staff, "first: 100", nil)
		if rest, _ := s.listEvents(t, staff, fmt.Sprint("last: ", total-100), nil); total < 200 {
			all = append(all, rest...)
		}
		someone := slices.IndexFunc(all, func(e listed) bool { return strings.HasPrefix(e.Actor, "usr_") })
		if len(all) != total || someone < 0 {
			t.Fatalf("the log has %d events, of users from %d on", len(all), someone)
		}
		actor, since, until := all[someone].Actor, all[len(all)/4].OccurredAt, all[len(all)*3/4].OccurredAt
		within := func(e listed) bool { return e.OccurredAt >= since && e.OccurredAt < until }
		for name, tt := range map[string]struct {
			vars map[string]any
			want func(e listed) bool
		}{
			"actor":          {map[string]any{"actor": actor}, func(e listed) bool { return e.Actor == actor }},
			"time":           {map[string]any{"since": since, "until": until}, within},
			"actor and time": {map[string]any{"actor": actor, "since": since, "until": until}, func(e listed) bool { return e.Actor == actor && within(e) }},
			"no actor":       {map[string]any{"actor": ""}, func(listed) bool { return false }},
		} {
			want := slices.DeleteFunc(slices.Clone(all), func(e listed) bool { return !tt.want(e) })
			for _, page := range []string{"first: 3", "last: 3"} {
				got, total := s.listEvents(t, staff, page, tt.vars)
				part := want[:min(3, len(want))]
				if page == "last: 3" {
					part = want[max(0, len(want)-3):]
				}
				if !slices.Equal(got, part) || total != len(want) {
					t.Errorf("by %s, %s: %v of %d, want %v of %d", name, page, got, total, part, len(want))
				}
			}
		}
		customer := &auth.Principal{UserID: uid.User(actor), Roles: []auth.Role{auth.Customer}, Credential: staff.Credential}
		own, _ := s.listEvents(t, customer, "first: 100", map[string]any{"actor": actor, "since": all[0].OccurredAt})
		if len(own) == 0 || slices.ContainsFunc(own, func(e listed) bool { return e.Actor != "" && e.Actor != actor }) {
			t.Errorf("what a customer did itself is %v", own)
		}
		s.listEvents(t, customer, "first: 100", map[string]any{"subject": actor, "since": since})
		for _, arguments := range []string{`actor: "usr_1"`, `actor: ""`, `actor: "` + string(staff.UserID) + `"`, `since: "` + since + `"`, `until: "` + until + `"`} {
			for _, ask := range []string{"nodes { id }", "totalCount"} {
				if got := s.run(t, customer, `{ events(`+arguments+`) { `+ask+` } }`, nil); !strings.Contains(got, "This needs the role STAFF") {
					t.Errorf("%s of events(%s) for a customer: %s, want a refusal", ask, arguments, got)
				}
			}
		}
	})
}
