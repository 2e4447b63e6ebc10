package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func newSequence(t testing.TB, db *store.DB) *store.Sequence {
	t.Helper()
	seq, err := db.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	if seq != nil {
		t.Cleanup(func() {
			if err := seq.Close(); err != nil {
				t.Errorf("close the sequence: %v", err)
			}
		})
	}
	return seq
}

// acquireSequence opens a sequence and takes the lease.
func acquireSequence(t testing.TB, db *store.DB, holder string) (*store.Sequence, lease.Lease) {
	t.Helper()
	seq := newSequence(t, db)
	l, ok, err := seq.Acquire(t.Context(), holder, time.Minute)
	if err != nil || !ok {
		t.Fatalf("Take(%s) = %v, %v, want the lease", holder, ok, err)
	}
	return seq, l
}

// expireSequence ends the lease as time would.
func expireSequence(t testing.TB, db *store.DB) {
	t.Helper()
	db.Exec(t, `UPDATE sequencer SET expires_at = clock_timestamp() - INTERVAL '1 second'`)
}

func TestEvents_Pending_reads_what_waits_for_a_position(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	for range 5 {
		givenUser(t, db)
	}
	seq, l := acquireSequence(t, db, "a")
	if _, _, err := seq.AssignPositions(t.Context(), l, time.Minute, 2); err != nil {
		t.Fatal(err)
	}
	rows := db.Log(t)
	for limit, want := range map[int]int{2: 2, 10: 3} {
		found, err := db.Events().Pending(t.Context(), limit)
		if err != nil || len(found) != want {
			t.Fatalf("Pending(%d) = %d events, %v, want %d", limit, len(found), err, want)
		}
		for i, e := range found {
			if row := rows[2+i]; e.ID != row.ID || e.Type != row.Type || e.SubjectID != row.SubjectID {
				t.Errorf("event %d is %s %s of %s, want %+v", i, e.ID, e.Type, e.SubjectID, row)
			}
		}
	}
}

func TestSequence_numbers_in_order_of_identity(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	for range 7 {
		givenUser(t, db)
	}
	seq, l := acquireSequence(t, db, "a")
	for _, want := range []int{3, 3, 1, 0} {
		n, next, err := seq.AssignPositions(t.Context(), l, time.Minute, 3)
		if err != nil || n != want || next.Position != l.Position+event.Position(want) {
			t.Fatalf("Number = %d, %+v, %v, want %d", n, next, err, want)
		}
		l = next
	}
	for i, row := range db.Log(t) {
		if row.Position == nil || *row.Position != int64(i+1) {
			t.Errorf("row %d has the position %v, want %d", i, row.Position, i+1)
		}
	}
}

// beginLateEvent inserts an event in a transaction that the caller commits later.
func beginLateEvent(t *testing.T, url string) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	late, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late.Exec(t.Context(), `INSERT INTO events (id, type, occurred_at, actor, subject_id, subject_version, data)
		VALUES ('late', 'product.created', now(), '', 's', 1, '{}')`); err != nil {
		t.Fatal(err)
	}
	return late
}

func TestSequence_numbers_a_late_commit_late_and_waits_for_no_transaction(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	db := testenv.Open(t, store.Config{URL: url})
	late := beginLateEvent(t, url)
	givenUser(t, db)
	givenUser(t, db)
	numberAll(t, db)
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	givenUser(t, db)
	numberAll(t, db)
	var got []int64
	for _, row := range db.Log(t) { // by identity
		got = append(got, *row.Position)
	}
	if want := [4]int64{3, 1, 2, 4}; len(got) != 4 || [4]int64(got) != want {
		t.Errorf("positions by identity = %v, want %v", got, want)
	}
}

func TestSequence_is_fenced(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(t *testing.T, db *store.DB, mine *store.Sequence, l lease.Lease) lease.Lease
	}{
		{"after another took over", func(t *testing.T, db *store.DB, _ *store.Sequence, l lease.Lease) lease.Lease {
			expireSequence(t, db)
			acquireSequence(t, db, "other")
			return l
		}},
		{"after its lease expired, even if no other node acquired it", func(t *testing.T, db *store.DB, _ *store.Sequence, l lease.Lease) lease.Lease {
			expireSequence(t, db)
			return l
		}},
		{"in an epoch of its own that has passed", func(t *testing.T, _ *store.DB, mine *store.Sequence, l lease.Lease) lease.Lease {
			if _, ok, err := mine.Acquire(t.Context(), l.Owner, time.Minute); err != nil || !ok {
				t.Fatalf("Take again = %v, %v", ok, err)
			}
			return l
		}},
		{"if a statement that it gave up on has numbered", func(t *testing.T, db *store.DB, mine *store.Sequence, l lease.Lease) lease.Lease {
			givenUser(t, db)
			if _, _, err := mine.AssignPositions(t.Context(), l, time.Minute, 1); err != nil {
				t.Fatal(err)
			}
			return l
		}},
		{"after it gave the lease up", func(t *testing.T, _ *store.DB, mine *store.Sequence, l lease.Lease) lease.Lease {
			if err := mine.Release(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			return l
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
			givenUser(t, db)
			mine, l := acquireSequence(t, db, "mine")
			l = tt.change(t, db, mine, l)
			before := db.Int(t.Context(), t, `SELECT COUNT(*) FROM events WHERE position IS NULL`)
			if n, _, err := mine.AssignPositions(t.Context(), l, time.Minute, 10); !errors.Is(err, lease.ErrLost) {
				t.Errorf("Number = %d, %v, want ErrLeaseLost", n, err)
			}
			if after := db.Int(t.Context(), t, `SELECT COUNT(*) FROM events WHERE position IS NULL`); after != before {
				t.Errorf("%d events have no position, want %d", after, before)
			}
		})
	}
}

func TestSequence_Take_leaves_a_live_lease_alone(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	acquireSequence(t, db, "a")
	if _, ok, err := newSequence(t, db).Acquire(t.Context(), "b", time.Minute); ok || err != nil {
		t.Errorf("Take = %v, %v, want false", ok, err)
	}
}

func TestAudit_finds_a_sequencer_that_would_give_positions_again(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	givenUser(t, db)
	numberAll(t, db)
	if found, err := db.Audit(t.Context()); len(found) > 0 || err != nil {
		t.Errorf("Audit = %v, %v, want no findings", found, err)
	}
	db.Exec(t, `UPDATE sequencer SET head = 0`)
	found, err := db.Audit(t.Context())
	if err != nil || len(found) != 1 || found[0].Subject != "sequencer" {
		t.Errorf("Audit = %v, %v, want the sequencer", found, err)
	}
}

// TestSequence_of_many_holders lets holders take the lease from one another all
// the time, each also using leases that it has lost.
func TestSequence_of_many_holders(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t), MaxConns: 10})
	const events, holders = 300, 4
	var writers, workers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for range events / 3 {
				givenUser(t, db)
			}
		})
	}
	done, cancel := context.WithCancel(t.Context())
	for i := range holders {
		seq := newSequence(t, db)
		workers.Go(func() {
			holder := string(rune('a' + i))
			var l lease.Lease
			for {
				last := done.Err() != nil
				if fresh, ok, err := seq.Acquire(t.Context(), holder, time.Millisecond); err != nil {
					t.Error(err)
					return
				} else if ok && randomOf([]bool{true, true, false}) {
					l = fresh
				}
				n, next, err := seq.AssignPositions(t.Context(), l, 2*time.Millisecond, 7)
				if err == nil {
					l = next
				} else if !errors.Is(err, lease.ErrLost) {
					t.Error(err)
					return
				}
				if last && n == 0 {
					return
				}
			}
		})
	}
	writers.Wait()
	cancel()
	workers.Wait()
	expireSequence(t, db)
	numberAll(t, db)
	seen := make(map[int64]bool)
	for _, row := range db.Log(t) {
		if row.Position == nil || *row.Position < 1 || *row.Position > events || seen[*row.Position] {
			t.Fatalf("the event %s has the position %v: not dense and unique from 1 to %d", row.ID, row.Position, events)
		}
		seen[*row.Position] = true
	}
}

// BenchmarkSequence_Number is the rate at which committed events get positions.
func BenchmarkSequence_Number(b *testing.B) {
	db := testenv.Open(b, store.Config{URL: testenv.Postgres(b)})
	seq, l := acquireSequence(b, db, "bench")
	numbered := 0
	for b.Loop() {
		b.StopTimer()
		db.Exec(b, `INSERT INTO events (id, type, occurred_at, actor, subject_id, subject_version, user_id, order_id, data)
			SELECT 'evt' || nextval('events_seq_seq'), 'order.placed', now(), 'usr', 'ord' || n, 1, 'usr' || n % 100, 'ord' || n, '{"number":"K7M2P-Q9X4T","status":"PENDING"}'
			FROM generate_series(1, 2000) AS n`)
		b.StartTimer()
		n, next, err := seq.AssignPositions(b.Context(), l, time.Minute, 2000)
		if err != nil || n != 2000 {
			b.Fatalf("Number = %d, %v", n, err)
		}
		l, numbered = next, numbered+n
	}
	b.ReportMetric(float64(numbered)/b.Elapsed().Seconds(), "events/s")
}

func TestEvents_State_says_how_long_events_may_have_waited_for_positions(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenUser(t, db)
		s, err := db.Events().State(t.Context())
		if waits := db.Dialect() == "postgres"; err != nil || (s.Behind > time.Hour) != waits {
			t.Errorf("State while no sequencer runs = %+v, %v", s, err)
		}
		numberAll(t, db)
		if s, err := db.Events().State(t.Context()); err != nil || s.Behind != 0 {
			t.Errorf("State when all is numbered = %+v, %v", s, err)
		}
		givenUser(t, db)
		if s, err := db.Events().State(t.Context()); err != nil || s.Behind > time.Minute {
			t.Errorf("State a moment later = %+v, %v", s, err)
		}
	})
}

// awaitLowWatermark assigns positions so many times, looking at the locks each time, and returns the low
// watermark.
func awaitLowWatermark(t *testing.T, db *store.DB, seq *store.Sequence, l lease.Lease, rounds int) (low int, next lease.Lease) {
	t.Helper()
	for range rounds {
		var err error
		store.ForgetLook(seq)
		if _, l, err = seq.AssignPositions(t.Context(), l, time.Minute, 1000); err != nil {
			t.Fatal(err)
		}
	}
	return db.Int(t.Context(), t, `SELECT low_seq FROM sequencer`), l
}

func TestSequence_low_watermark_waits_for_every_transaction_with_an_identity(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	db := testenv.Open(t, store.Config{URL: url})
	givenUser(t, db)
	seq, l := acquireSequence(t, db, "a")
	low, l := awaitLowWatermark(t, db, seq, l, 4)
	if low != 2 {
		t.Fatalf("the low watermark = %d after one event, want 2", low)
	}
	late := beginLateEvent(t, url) // identity 2
	for range 3 {
		givenUser(t, db)
		if low, l = awaitLowWatermark(t, db, seq, l, 4); low != 2 {
			t.Fatalf("the low watermark = %d, while the transaction with the identity 2 is open", low)
		}
	}
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	givenUser(t, db)
	if low, _ = awaitLowWatermark(t, db, seq, l, 6); low != 7 {
		t.Errorf("the low watermark = %d once all is committed, want 7", low)
	}
	for _, row := range db.Log(t) {
		if row.Position == nil {
			t.Errorf("the event %s with the identity %d has no position", row.ID, row.Seq)
		}
	}
	if st, err := db.Events().State(t.Context()); err != nil || st.Head != 6 {
		t.Errorf("State = %+v, %v, want the head 6", st, err)
	}
	if err := db.RenewTimeline(t.Context()); err != nil {
		t.Fatal(err)
	}
	if low := db.Int(t.Context(), t, `SELECT low_seq FROM sequencer`); low != 0 {
		t.Errorf("the low watermark = %d on a new timeline, want 0", low)
	}
}

// TestSequence_skips_no_late_commit has writers hold transactions open for random times, while positions are assigned.
func TestSequence_skips_no_late_commit(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	db := testenv.Open(t, store.Config{URL: url})
	seq, l := acquireSequence(t, db, "a")
	var wg sync.WaitGroup
	for writer := range 6 {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close(context.Background())
			for i := range 40 {
				tx, err := conn.Begin(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_, err = tx.Exec(t.Context(), `INSERT INTO events (id, type, occurred_at, actor, subject_id, subject_version, data) VALUES ($1, 'product.created', now(), '', 's', 1, '{}')`,
					fmt.Sprint(writer, " ", i))
				if err == nil {
					_, err = tx.Exec(t.Context(), `SELECT pg_sleep(random() * 0.03 * $1)`, writer)
				}
				if end := tx.Commit; err == nil && i%7 == 6 {
					err = tx.Rollback(t.Context())
				} else if err == nil {
					err = end(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		_, l = awaitLowWatermark(t, db, seq, l, 1)
	}
	low, _ := awaitLowWatermark(t, db, seq, l, 6)
	if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM events WHERE position IS NULL`); n > 0 || low < 2 {
		t.Errorf("%d events have no position, the low watermark is %d", n, low)
	}
}

// BenchmarkSequence_behind_an_old_snapshot assigns positions while another session, as of pg_dump, keeps dead entries
// in the index: with the low watermark, and from the beginning.
func BenchmarkSequence_behind_an_old_snapshot(b *testing.B) {
	url := testenv.Postgres(b)
	db := testenv.Open(b, store.Config{URL: url})
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(context.Background())
	givenUser(b, db)
	if _, err := conn.Exec(b.Context(), `BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT COUNT(*) FROM events`); err != nil {
		b.Fatal(err)
	}
	seq, l := acquireSequence(b, db, "a")
	const history = 200_000
	insert := `INSERT INTO events (id, type, occurred_at, actor, subject_id, subject_version, data)
		SELECT 'h' || i || random(), 'product.created', now(), '', 's', 1, '{}' FROM generate_series(1, ?) AS i`
	assign := func(limit int) {
		var err error
		store.ForgetLook(seq)
		if _, l, err = seq.AssignPositions(b.Context(), l, time.Minute, limit); err != nil {
			b.Fatal(err)
		}
	}
	for range history / 2000 {
		db.Exec(b, insert, 2000)
		assign(2001)
	}
	for range 6 {
		assign(2000)
	}
	for name, reset := range map[string]string{"low watermark": "", "from the beginning": `UPDATE sequencer SET low_seq = 0`} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				db.Exec(b, insert, 1)
				if reset != "" {
					db.Exec(b, reset)
					store.ForgetWatermark(seq)
				}
				b.StartTimer()
				assign(2000)
			}
		})
	}
}
