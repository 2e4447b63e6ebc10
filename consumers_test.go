package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

const setStatus = `mutation($id: ID!, $status: UserStatus!) { updateUser(input: {id: $id, status: $status}) { userErrors { code } } }`

// revocations returns how often each session and key was revoked, by the log.
func revocations(t *testing.T, staff caller) map[string]int {
	t.Helper()
	counts := map[string]int{}
	vars := map[string]any{"first": 100, "types": []any{"SESSION_REVOKED", "API_KEY_REVOKED"}}
	for more := true; more; {
		page := at(staff.do(t, readEvents, vars), "events")
		for i := range at(page, "edges").([]any) {
			counts[text(page, "edges", i, "node", "subjectId")]++
		}
		vars["after"], more = text(page, "pageInfo", "endCursor"), at(page, "pageInfo", "hasNextPage") == true
	}
	return counts
}

// userID returns the id of the caller.
func (c caller) userID(t *testing.T) string {
	t.Helper()
	return text(c.do(t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
}

func TestServer_ends_the_sessions_of_a_deactivated_user_for_good(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root, ada := signInAdmin(t, p), signUp(t, p, "ada")
		id := ada.userID(t)
		root.do(t, setStatus, map[string]any{"id": id, "status": "DEACTIVATED"})
		eventually(t, "the session is revoked", func() bool { return len(revocations(t, root)) == 1 })
		root.do(t, setStatus, map[string]any{"id": id, "status": "ACTIVE"})
		if got := ada.refusal(t, `{ viewer { user { id } } }`, nil); got != "UNAUTHENTICATED" {
			t.Errorf("the session of before: %q, want UNAUTHENTICATED", got)
		}
		signIn(t, p, "ada", "a password of mine").userID(t)
		status := root.do(t, `{ consumers { name cursor lag owner movedAt deadLetters } }`, nil)
		if text(status, "consumers", 0, "name") != "access" || text(status, "consumers", 0, "owner") == "" || number(status, "consumers", 0, "deadLetters") != 0 {
			t.Errorf("the consumers are %v", status)
		}
		if got := ada.refusal(t, `{ consumers { name } }`, nil); got != "UNAUTHENTICATED" {
			t.Errorf("consumers with a bad token: %q", got)
		}
		if got := signUp(t, p, "bob").refusal(t, `{ deadLetters { nodes { id } } }`, nil); got != "FORBIDDEN" {
			t.Errorf("dead letters for a customer: %q, want FORBIDDEN", got)
		}
	})
}

// deactivateMany opens accounts, and deactivates them while disturb disturbs the
// servers; then each session must have ended once.
func deactivateMany(t *testing.T, p *testenv.Process, database string, rounds int, disturb func(round int)) {
	t.Helper()
	want := 0
	for round := range rounds {
		root := signInAdmin(t, p)
		for i := range 5 {
			id := signUp(t, p, fmt.Sprintf("user %d %d", round, i)).userID(t)
			root.do(t, setStatus, map[string]any{"id": id, "status": "DEACTIVATED"})
			want++
		}
		disturb(round)
	}
	root := signInAdmin(t, p)
	eventually(t, "all sessions are revoked", func() bool { return len(revocations(t, root)) >= want })
	for id, n := range revocations(t, root) {
		if n != 1 {
			t.Errorf("session %s was revoked %d times, want once", id, n)
		}
	}
	if out, err := p.Run("doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

func TestServer_has_each_effect_of_an_event_once_when_it_is_killed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		deactivateMany(t, p, database, size(3, 30), func(int) {
			p.Kill()
			p.Start()
		})
	})
}

func TestServer_hands_a_consumer_over_when_its_node_freezes(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	first := start(t, database)
	second := start(t, database)
	owner := func(p *testenv.Process) string {
		return text(signInAdmin(t, p).do(t, `{ consumers { owner } }`, nil), "consumers", 0, "owner")
	}
	eventually(t, "somebody owns the consumer", func() bool { return owner(second) != "" })
	before := owner(second)
	frozen, awake := first, second
	if !strings.Contains(first.Logs(), "this node works on events") {
		frozen, awake = second, first
	}
	deactivateMany(t, awake, database, 3, func(round int) {
		switch round {
		case 0:
			frozen.Freeze()
		case 1:
			eventually(t, "the other node takes over", func() bool { o := owner(awake); return o != "" && o != before })
			frozen.Thaw()
		}
	})
	if !strings.Contains(awake.Logs(), "this node works on events") {
		t.Error("the node that was awake never worked on events")
	}
}

func TestServer_replays_a_dead_letter(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		id := signUp(t, p, "ada").userID(t)
		p.Stop()
		bury(t, database, id)
		p.Start()
		root := signInAdmin(t, p)
		const list = `query($c: String) { deadLetters(filter: {consumer: $c}) { totalCount nodes { id consumer attempts code message event { type subjectId cursor } } } }`
		got := at(root.do(t, list, map[string]any{"c": "access"}), "deadLetters")
		letter := text(got, "nodes", 0, "id")
		if number(got, "totalCount") != 1 || text(got, "nodes", 0, "event", "subjectId") != id || text(got, "nodes", 0, "code") != "BAD_INPUT" {
			t.Fatalf("the dead letters are %v", got)
		}
		if got := root.do(t, list, map[string]any{"c": "other"}); number(got, "deadLetters", "totalCount") != 0 {
			t.Errorf("another consumer has %v", got)
		}
		if node := root.do(t, `query($id: ID!) { node(id: $id) { id ... on DeadLetter { consumer } } }`, map[string]any{"id": letter}); text(node, "node", "consumer") != "access" {
			t.Errorf("node(id) gives %v", node)
		}
		if out, err := p.Run("deadletters", "show", letter); err != nil || !strings.Contains(out, "why it failed") {
			t.Errorf("deadletters show: %v, %s", err, out)
		}
		if out, err := p.Run("deadletters"); err != nil || !strings.Contains(out, letter) {
			t.Errorf("deadletters: %v, %s", err, out)
		}
		if out, err := p.Run("doctor"); err == nil || !strings.Contains(out, "1 dead letters") {
			t.Errorf("doctor: %v, %s", err, out)
		}
		if out, err := p.Run("consumers"); err != nil || !strings.Contains(out, "access") {
			t.Errorf("consumers: %v, %s", err, out)
		}
		const replay = `mutation($ids: [ID!]) { replayDeadLetters(input: {ids: $ids, idempotencyKey: "k"}) { requested userErrors { code path } } }`
		if got := root.do(t, replay, map[string]any{"ids": []any{letter}}); number(got, "replayDeadLetters", "requested") != 1 {
			t.Errorf("replayDeadLetters gives %v", got)
		}
		eventually(t, "the letter is replayed", func() bool {
			return number(root.do(t, list, map[string]any{"c": "access"}), "deadLetters", "totalCount") == 0
		})
		if got := root.do(t, replay, map[string]any{"ids": []any{letter}}); number(got, "replayDeadLetters", "requested") != 0 {
			t.Errorf("the same call again gives %v", got)
		}
		if out, err := p.Run("deadletters", "replay", letter); err == nil {
			t.Errorf("a replay of what is replayed: %s", out)
		}
		if n := len(revocations(t, root)); n != 1 {
			t.Errorf("%d sessions were revoked, want ada's", n)
		}
	})
}

// bury makes a dead letter of a deactivation of the user that the consumer access
// has not met, as if it had failed.
func bury(t *testing.T, database, user string) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tenure, ok, err := db.Offsets().Take(t.Context(), "access", "test", 0, time.Minute)
	if err != nil || !ok {
		t.Fatalf("Take = %v, %v", ok, err)
	}
	found, err := db.Events().Read(t.Context(), event.Filter{SubjectID: user}, event.Span{Limit: 1})
	if err != nil || len(found) != 1 {
		t.Fatalf("Read = %v, %v", found, err)
	}
	e := *found[0]
	e.ID = uid.NewEvent(time.Now()) // one that retention has taken from the log
	e.Type, e.Data, e.OccurredAt = event.UserUpdated, []byte(`{"status":"DEACTIVATED"}`), time.Now().Add(time.Minute)
	if err := db.Letters().Bury(t.Context(), tenure, &e, event.Failure{Attempts: 10, Code: "BAD_INPUT", Message: "No.", Detail: "why it failed"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Offsets().Release(t.Context(), tenure); err != nil {
		t.Fatal(err)
	}
}

func TestServer_keeps_no_more_events_than_it_is_told(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root := signInAdmin(t, p)
		timeline, _, _ := strings.Cut(text(root.do(t, `{ eventCursor }`, nil), "eventCursor"), ".")
		for i := range 10 {
			createProduct(t, root, fmt.Sprint("SKU", i), 1)
		}
		root.events(t, 10, map[string]any{"types": []any{"PRODUCT_CREATED"}})
		eventually(t, "the consumer is past them", func() bool {
			return number(root.do(t, `{ consumers { lag } }`, nil), "consumers", 0, "lag") == 0
		})
		p.Stop()
		p = testenv.Server(t, append(settings(database), "BACKPLANE_RETENTION_COUNT=3")...)
		root = signInAdmin(t, p)
		eventually(t, "three events are left", func() bool { return number(root.do(t, readEvents, nil), "events", "totalCount") == 3 })
		if got := root.refusal(t, readEvents, map[string]any{"after": timeline + ".1"}); got != "CURSOR_EXPIRED" {
			t.Errorf("a page after the first event: %q, want CURSOR_EXPIRED", got)
		}
		for _, transport := range []string{"socket", "event stream"} {
			l := listen(t, transport, root, `subscription($after: Cursor) { events(after: $after) { cursor } }`, map[string]any{"after": timeline + ".1"})
			if m, err := l.next(); err != nil || m.code != "CURSOR_EXPIRED" {
				t.Errorf("a subscription by %s after the first event: %+v, %v, want CURSOR_EXPIRED", transport, m, err)
			}
		}
		if out, err := p.Run("doctor"); err != nil {
			t.Errorf("doctor: %v\n%s", err, out)
		}
	})
}
