package store_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// eraseAll erases until nothing is due, and returns how many rows it blanked.
func eraseAll(t testing.TB, db *store.DB) (rows int) {
	t.Helper()
	for more := true; more; {
		done, err := db.EraseNext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rows, more = rows+done.Rows, done.More
	}
	return rows
}

func deleteUser(ctx context.Context, db *store.DB, id uid.User) error {
	_, err := db.Users().UpdateCountingAdmins(ctx, claim.None, id, func(u *user.User, others int) error { return u.Delete(others, at) })
	return err
}

// givenPersonalHistory gives a user events of its own, of orders with reasons and notes, and dead letters, in
// shares of n; on PostgreSQL all events have positions.
func givenPersonalHistory(t testing.TB, db *store.DB, id uid.User, n int) {
	t.Helper()
	events := `INSERT INTO events (seq, position, id, type, occurred_at, actor, subject_id, subject_version, user_id, order_id, data)
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		SELECT h.seq + i, h.seq + i, 'evt_history' || i, CASE i % 2 WHEN 0 THEN 'user.updated' ELSE 'order.cancelled' END, ?, '', CASE i % 2 WHEN 0 THEN ? ELSE 'ord_' || i END, 1, ?,
			CASE i % 2 WHEN 1 THEN 'ord_' || i END, '{"number":"' || i || '","reason":"secret ' || i || '"}' FROM n, (SELECT COALESCE(MAX(seq), 0) AS seq FROM events) AS h`
	letters := `INSERT INTO dead_letters (id, consumer, position, event_id, type, occurred_at, actor, subject_id, subject_version, user_id, order_id, data, attempts, code, message, detail, failed_at)
		SELECT 'dlt_' || id, 'c', position, id, type, occurred_at, actor, subject_id, subject_version, user_id, order_id, data, 10, '', '', '', occurred_at FROM events WHERE user_id = ? AND position % 10 = 0`
	args := []any{n, at, string(id), string(id)}
	if db.Dialect() == "postgres" {
		events = strings.NewReplacer("WHERE i < ?", "WHERE i < CAST(? AS bigint)", "1, ?,", "1, CAST(? AS text),", "'user.updated'", "'user.updated'",
			"'order.cancelled' END, ?,", "'order.cancelled' END, CAST(? AS timestamptz),", "THEN ? ELSE", "THEN CAST(? AS text) ELSE",
			`'"}' FROM`, `'"}')::json FROM`, `'{"number":"'`, `('{"number":"'`).Replace(events)
		db.Exec(t, events, args...)
		db.Exec(t, `UPDATE sequencer SET head = (SELECT MAX(position) FROM events)`)
		db.Exec(t, `SELECT setval('events_seq_seq', (SELECT MAX(seq) FROM events))`)
	} else {
		db.Exec(t, events, args...)
	}
	db.Exec(t, letters, string(id))
}

// countPersonal counts what still holds personal data.
func countPersonal(t testing.TB, db *store.DB) int {
	t.Helper()
	return db.Int(t.Context(), t, `SELECT (SELECT COUNT(*) FROM events WHERE CAST(data AS text) LIKE '%secret%')
		+ (SELECT COUNT(*) FROM dead_letters WHERE CAST(data AS text) LIKE '%secret%') + (SELECT COUNT(*) FROM orders WHERE note <> '')`)
}

func TestErasure_hides_at_once_and_goes_on_behind_the_deletion(t *testing.T) {
	t.Parallel()
	events := 20_000
	if testenv.Soak() {
		events = 200_000
	}
	testenv.EachURL(t, func(t *testing.T, url string) {
		var later atomic.Int64
		start := time.Now()
		db := testenv.Open(t, store.Config{URL: url, Now: func() time.Time { return start.Add(time.Duration(later.Load())) }})
		who, other := givenUser(t, db), givenUser(t, db)
		givenProduct(t, db, "cup", 10)
		o, err := placeOrder(t.Context(), claim.None, db, who.ID, "cup")
		if err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `UPDATE orders SET note = 'secret' WHERE id = ?`, string(o.ID))
		numberedEvents(t, db, event.Filter{UserID: who.ID})
		givenPersonalHistory(t, db, who.ID, events)
		before := countPersonal(t, db)
		if err := deleteUser(t.Context(), db, who.ID); err != nil {
			t.Fatal(err)
		}
		if n := countPersonal(t, db); n != before {
			t.Errorf("the deletion itself blanked %d of %d rows", before-n, before)
		}
		requireHidden(t, db, who.ID)
		if _, err := db.EraseNext(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // as if the node died
		if _, err := db.EraseNext(ctx); err == nil {
			t.Error("EraseNext of a cancelled context succeeds")
		}
		var wg sync.WaitGroup
		var rows atomic.Int64
		for range 3 { // nodes
			wg.Go(func() { rows.Add(int64(eraseAll(t, db))) })
		}
		wg.Wait()
		eraseAll(t, db)
		if n := countPersonal(t, db); n != 0 {
			t.Errorf("%d of %d rows still hold personal data, %d were blanked", n, before, rows.Load())
		}
		requireHidden(t, db, who.ID)
		requireErasures(t, db, 1)
		later.Store(int64(3 * time.Minute))
		eraseAll(t, db)
		wantLeft := 0
		if db.Dialect() == "postgres" {
			wantLeft = 1 // the event of the deletion has no position yet
		}
		requireErasures(t, db, wantLeft)
		numberedEvents(t, db, event.Filter{UserID: other.ID})
		later.Store(int64(6 * time.Minute))
		eraseAll(t, db)
		requireErasures(t, db, 0)
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM events WHERE type = 'user.deleted' AND CAST(data AS text) NOT LIKE '%redacted%'`); n != 1 {
			t.Errorf("events of the deletion with their data = %d, want 1", n)
		}
	})
}

// requireHidden reads what may hold personal data of a deleted user.
func requireHidden(t *testing.T, db *store.DB, id uid.User) {
	t.Helper()
	found, err := db.Events().Read(t.Context(), event.Filter{UserID: id}, eventlog.Span{Limit: 1000})
	if err != nil || len(found) != 1000 {
		t.Fatalf("Read = %d events, %v", len(found), err)
	}
	letters, err := db.DeadLetters().List(t.Context(), consumer.DeadLetterFilter{}, page.Args{First: new(100)})
	if err != nil || len(letters.Items) != 100 {
		t.Fatalf("List = %d dead letters, %v", len(letters.Items), err)
	}
	for _, l := range letters.Items {
		found = append(found, l.Event)
	}
	for _, e := range found {
		if data := string(e.Data); strings.Contains(data, "secret") || strings.HasPrefix(e.SubjectID, "ord_") && !strings.Contains(data, "number") {
			t.Fatalf("a reader sees %s of %s", data, e.SubjectID)
		}
	}
}

func requireErasures(t *testing.T, db *store.DB, want int) {
	t.Helper()
	if got, err := db.Erasures(t.Context(), time.Time{}); err != nil || got.Accounts != want {
		t.Errorf("Erasures = %+v, %v, want %d accounts", got, err, want)
	}
}

// TestErasure_holds_up_no_numbering keeps an event of the user without a position, and its row locked.
func TestErasure_holds_up_no_numbering(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	who := givenUser(t, db)
	numberedEvents(t, db, event.Filter{UserID: who.ID})
	givenPersonalHistory(t, db, who.ID, 100)
	if _, err := db.Users().Update(t.Context(), claim.None, who.ID, func(u *user.User) error {
		name := "a secret name"
		return u.Apply(user.Change{Name: fieldOf(name)}, 0, at)
	}); err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Rollback() //nolint:errcheck // it holds a lock alone
	if _, err := raw.ExecContext(t.Context(), `SELECT 1 FROM events WHERE position IS NULL FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	if err := deleteUser(t.Context(), db, who.ID); err != nil {
		t.Fatal(err)
	}
	eraseAll(t, db)
	if n := countPersonal(t, db); n != 1 {
		t.Errorf("rows with personal data = %d, want the one without a position", n)
	}
	if err := raw.Rollback(); err != nil {
		t.Fatal(err)
	}
	for _, e := range numberedEvents(t, db, event.Filter{UserID: who.ID}) {
		if strings.Contains(string(e.Data), "secret") {
			t.Errorf("a reader sees %s", e.Data)
		}
	}
	db.Exec(t, `UPDATE erasures SET due_at = requested_at`)
	eraseAll(t, db)
	if n := countPersonal(t, db); n != 0 {
		t.Errorf("rows with personal data = %d once all have positions", n)
	}
}
