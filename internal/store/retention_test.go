package store_test

import (
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestEvents_cleans_a_long_log_by_index asks PostgreSQL itself how it came to the
// events: a session tells what it has done when it ends.
func TestEvents_cleans_a_long_log_by_index(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	watcher, db := testenv.Open(t, store.Config{URL: url}), testenv.Open(t, store.Config{URL: url})
	watcher.Exec(t, `INSERT INTO events (id, position, type, occurred_at, actor, subject_id, subject_version, data, touched)
		SELECT 'evt_' || n, n, 'product.updated', now() - (20000 - n) * interval '1 second', '', 'prd_' || n % 500, n, '{}', '[]'
		FROM generate_series(1, 20000) AS n`)
	watcher.Exec(t, `UPDATE sequencer SET head = 20000`)
	watcher.Exec(t, `ANALYZE events`)
	scans := `SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'events'`
	before := watcher.Int(t.Context(), t, scans)
	log, tenure := db.Events(), acquireLease(t, db, eventlog.CleanerLease, "here")
	for range 3 {
		state, err := log.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		after := state.Oldest - 1
		young, err := log.FirstSince(t.Context(), after, after+1000, time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if want := event.Position(0); young != want {
			t.Errorf("the first young event behind %d is at %d, want none", after, young)
		}
		if err := log.Remove(t.Context(), after, after+1000); err != nil {
			t.Fatal(err)
		}
		if tenure, err = db.Leases().Renew(t.Context(), tenure, after+1000, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if left := watcher.Int(t.Context(), t, `SELECT COUNT(*) FROM events`); left != 17_000 {
		t.Errorf("the log has %d events, want 17000", left)
	}
	if n := watcher.Int(t.Context(), t, scans) - before; n > 1 { // that of the count
		t.Errorf("the log was read from end to end %d times, want never", n)
	}
}
