package consumers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

const setStatus = `mutation($id: ID!, $status: UserStatus!) { updateUser(input: {id: $id, status: $status}) { userErrors { code } } }`

// revocations returns how often each session and key was revoked, by the log.
func revocations(t *testing.T, staff harness.Caller) map[string]int {
	t.Helper()
	counts := map[string]int{}
	vars := map[string]any{"first": 100, "types": []any{"SESSION_REVOKED", "API_KEY_REVOKED"}}
	for more := true; more; {
		page := harness.At(staff.Do(t, harness.ReadEvents, vars), "events")
		for i := range harness.At(page, "edges").([]any) {
			counts[harness.Text(page, "edges", i, "node", "subjectId")]++
		}
		vars["after"], more = harness.Text(page, "pageInfo", "endCursor"), harness.At(page, "pageInfo", "hasNextPage") == true
	}
	return counts
}

func TestServer_ends_the_sessions_of_a_deactivated_user_for_good(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada")
		id := ada.UserID(t)
		root.Do(t, setStatus, map[string]any{"id": id, "status": "DEACTIVATED"})
		harness.Eventually(t, "the session is revoked", func() bool { return len(revocations(t, root)) == 1 })
		root.Do(t, setStatus, map[string]any{"id": id, "status": "ACTIVE"})
		if got := ada.RefusalCode(t, `{ viewer { user { id } } }`, nil); got != "UNAUTHENTICATED" {
			t.Errorf("the session of before: %q, want UNAUTHENTICATED", got)
		}
		harness.SignIn(t, p, "ada", "a password of mine").UserID(t)
		status := root.Do(t, `{ consumers { name cursor lag owner movedAt deadLetters } }`, nil)
		if harness.Text(status, "consumers", 0, "name") != "access" || harness.Text(status, "consumers", 0, "owner") == "" || harness.Number(status, "consumers", 0, "deadLetters") != 0 {
			t.Errorf("the consumers are %v", status)
		}
		if got := ada.RefusalCode(t, `{ consumers { name } }`, nil); got != "UNAUTHENTICATED" {
			t.Errorf("consumers with a bad token: %q", got)
		}
		if got := harness.SignUp(t, p, "bob").RefusalCode(t, `{ deadLetters { nodes { id } } }`, nil); got != "FORBIDDEN" {
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
		root := harness.SignInAdmin(t, p)
		for i := range 5 {
			id := harness.SignUp(t, p, fmt.Sprintf("user %d %d", round, i)).UserID(t)
			root.Do(t, setStatus, map[string]any{"id": id, "status": "DEACTIVATED"})
			want++
		}
		disturb(round)
	}
	root := harness.SignInAdmin(t, p)
	harness.Eventually(t, "all sessions are revoked", func() bool { return len(revocations(t, root)) >= want })
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
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		deactivateMany(t, p, database, harness.Size(3, 30), func(int) {
			p.Kill()
			p.Start()
		})
	})
}

func TestServer_hands_a_consumer_over_when_its_node_freezes(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	first := harness.StartServer(t, database)
	second := harness.StartServer(t, database)
	owner := func(p *testenv.Process) string {
		return harness.Text(harness.SignInAdmin(t, p).Do(t, `{ consumers { owner } }`, nil), "consumers", 0, "owner")
	}
	harness.Eventually(t, "a node owns the consumer", func() bool { return owner(second) != "" })
	before := owner(second)
	frozen, awake := first, second
	if !strings.Contains(first.Logs(), "consumer started") {
		frozen, awake = second, first
	}
	deactivateMany(t, awake, database, 3, func(round int) {
		switch round {
		case 0:
			frozen.Freeze()
		case 1:
			harness.Eventually(t, "the other node takes over", func() bool { o := owner(awake); return o != "" && o != before })
			frozen.Thaw()
		}
	})
	if !strings.Contains(awake.Logs(), "consumer started") {
		t.Error("the other node never started the consumer")
	}
}

func TestServer_replays_a_dead_letter(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		id := harness.SignUp(t, p, "ada").UserID(t)
		p.Stop()
		parkDeadLetter(t, database, id)
		p.Start()
		root := harness.SignInAdmin(t, p)
		const list = `query($c: String) { deadLetters(filter: {consumer: $c}) { totalCount nodes { id consumer attempts code message event { type subjectId cursor } } } }`
		got := harness.At(root.Do(t, list, map[string]any{"c": "access"}), "deadLetters")
		letter := harness.Text(got, "nodes", 0, "id")
		if harness.Number(got, "totalCount") != 1 || harness.Text(got, "nodes", 0, "event", "subjectId") != id || harness.Text(got, "nodes", 0, "code") != "BAD_INPUT" {
			t.Fatalf("the dead letters are %v", got)
		}
		if got := root.Do(t, list, map[string]any{"c": "other"}); harness.Number(got, "deadLetters", "totalCount") != 0 {
			t.Errorf("another consumer has %v", got)
		}
		if node := root.Do(t, `query($id: ID!) { node(id: $id) { id ... on DeadLetter { consumer } } }`, map[string]any{"id": letter}); harness.Text(node, "node", "consumer") != "access" {
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
		if got := root.Do(t, replay, map[string]any{"ids": []any{letter}}); harness.Number(got, "replayDeadLetters", "requested") != 1 {
			t.Errorf("replayDeadLetters gives %v", got)
		}
		harness.Eventually(t, "the letter is replayed", func() bool {
			return harness.Number(root.Do(t, list, map[string]any{"c": "access"}), "deadLetters", "totalCount") == 0
		})
		if got := root.Do(t, replay, map[string]any{"ids": []any{letter}}); harness.Number(got, "replayDeadLetters", "requested") != 0 {
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

// parkDeadLetter parks an event of a deactivation of the user that the consumer access
// has not met, as if it had failed.
func parkDeadLetter(t *testing.T, database, user string) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tenure, ok, err := db.Leases().Acquire(t.Context(), "access", "test", 0, time.Minute)
	if err != nil || !ok {
		t.Fatalf("Take = %v, %v", ok, err)
	}
	found, err := db.Events().Read(t.Context(), event.Filter{SubjectID: user}, eventlog.Span{Limit: 1})
	if err != nil || len(found) != 1 {
		t.Fatalf("Read = %v, %v", found, err)
	}
	e := *found[0]
	e.ID = uid.NewEvent(time.Now()) // one that retention has taken from the log
	e.Type, e.Data, e.OccurredAt = event.UserUpdated, []byte(`{"status":"DEACTIVATED"}`), time.Now().Add(time.Minute)
	if err := db.DeadLetters().Park(t.Context(), tenure, &e, consumer.Failure{Attempts: 10, Code: "BAD_INPUT", Message: "No.", Detail: "why it failed"}); err != nil {
		t.Fatal(err)
	}
	if err := db.Leases().Release(t.Context(), tenure); err != nil {
		t.Fatal(err)
	}
}

func TestServer_removes_events_past_the_retention(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		first := harness.Text(root.Do(t, `{ events(first: 1) { nodes { cursor } } }`, nil), "events", "nodes", 0, "cursor")
		for i := range 10 {
			harness.CreateProduct(t, root, fmt.Sprint("SKU", i), 1)
		}
		root.Events(t, 10, map[string]any{"types": []any{"PRODUCT_CREATED"}})
		harness.Eventually(t, "the consumer is past them", func() bool {
			return harness.Number(root.Do(t, `{ consumers { lag } }`, nil), "consumers", 0, "lag") == 0
		})
		p.Stop()
		p = testenv.Server(t, append(harness.Settings(database), "BACKPLANE_RETENTION_COUNT=3")...)
		root = harness.SignInAdmin(t, p)
		harness.Eventually(t, "three events are left", func() bool { return harness.Number(root.Do(t, harness.ReadEvents, nil), "events", "totalCount") == 3 })
		if got := root.RefusalCode(t, harness.ReadEvents, map[string]any{"after": first}); got != "CURSOR_EXPIRED" {
			t.Errorf("a page after the first event: %q, want CURSOR_EXPIRED", got)
		}
		for _, transport := range []string{"socket", "event stream"} {
			l := harness.Subscribe(t, transport, root, `subscription($after: Cursor) { events(after: $after) { cursor } }`, map[string]any{"after": first})
			if m, err := l.Next(); err != nil || m.Code != "CURSOR_EXPIRED" {
				t.Errorf("a subscription by %s after the first event: %+v, %v, want CURSOR_EXPIRED", transport, m, err)
			}
		}
		if out, err := p.Run("doctor"); err != nil {
			t.Errorf("doctor: %v\n%s", err, out)
		}
	})
}
