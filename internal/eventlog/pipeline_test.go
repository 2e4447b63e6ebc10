package eventlog_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// TestFeed_gives_each_subscriber_the_log is the promise of the whole: whatever
// happens to nodes, each subscriber's sequence is the log.
func TestFeed_gives_each_subscriber_the_log(t *testing.T) {
	t.Parallel()
	for _, w := range []wire{sound, cut, liar} {
		t.Run(string(w), func(t *testing.T) {
			t.Parallel()
			testenv.EachURL(t, func(t *testing.T, url string) {
				c := startCluster(t, url, 3, w)
				const writers = 50
				each := eventlogtest.Size(8, 400)
				total := event.Position(writers * each)
				state, err := c.nodes[0].DB.Events().State(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				seen := newProgress()
				var all sync.WaitGroup
				sequences := make([][]*event.Event, 12)
				for i := range sequences {
					all.Go(func() {
						sequences[i] = c.collect(t, event.Cursor{Timeline: state.Timeline}, event.Filter{}, total, seen)
					})
				}
				all.Go(func() { disturb(t, c, total, seen) })
				write(t, c, writers, each, seen)
				all.Wait()
				log := wholeLog(t, c.any().DB, int(total))
				for i, got := range sequences {
					if diff := cmp.Diff(ids(log), ids(got)); diff != "" {
						t.Errorf("subscriber %d saw something else than the log (-log +seen):\n%.2000s", i, diff)
					}
				}
			})
		})
	}
}

// disturb freezes the node that numbers, lets its lease expire, goes on with it
// later, and kills a node.
func disturb(t *testing.T, c *cluster, total event.Position, seen *progress) {
	t.Helper()
	seen.await(t, total/4)
	if !strings.HasPrefix(c.url, "postgres") {
		return
	}
	frozen := c.nodes[0]
	for _, n := range c.nodes {
		if n.Pipeline.LeadsSequencer() {
			frozen = n
		}
	}
	frozen.Freezer.Freeze()
	conn, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `UPDATE sequencer SET expires_at = clock_timestamp() - INTERVAL '1 second'`); err != nil {
		t.Error(err)
	}
	seen.await(t, total/2)
	frozen.Freezer.Thaw()
	c.kill(frozen)
}

// progress is how far any subscriber is.
type progress struct {
	mu      sync.Mutex
	at      event.Position
	changed chan struct{} // closed when at rises
}

func newProgress() *progress { return &progress{changed: make(chan struct{})} }

func (p *progress) rise(to event.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if to > p.at {
		p.at = to
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// await waits until a subscriber is at the position.
func (p *progress) await(t *testing.T, at event.Position) {
	t.Helper()
	for {
		p.mu.Lock()
		reached, changed := p.at >= at, p.changed
		p.mu.Unlock()
		if reached {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			return
		}
	}
}

// write runs writers that each store some events: on PostgreSQL in transactions
// that stay open for random times between insert and commit, some for as long as
// it takes a good part of the others to be seen.
func write(t *testing.T, c *cluster, writers, each int, seen *progress) {
	t.Helper()
	var group sync.WaitGroup
	defer group.Wait()
	if !strings.HasPrefix(c.url, "postgres") {
		for w := range writers {
			group.Go(func() {
				for i := range each {
					addUser(t, c.any().DB, fmt.Sprintf("w%dn%d", w, i))
				}
			})
		}
		return
	}
	for w := range writers {
		group.Go(func() {
			for i := range each {
				if i%4 == 3 { // as an application would
					addUser(t, c.any().DB, fmt.Sprintf("w%dn%d", w, i))
					continue
				}
				hold := func() {}
				if w%10 == 0 && i == 1 {
					hold = func() { seen.await(t, event.Position(writers*each)/3) }
				}
				insertSlowly(t, c, hold)
			}
		})
	}
}

var inserted atomic.Int64

// insertSlowly stores an event in a transaction that stays open for a while
// after the event got its identity.
func insertSlowly(t *testing.T, c *cluster, hold func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	id := fmt.Sprint("evt_", inserted.Add(1))
	if _, err := tx.Exec(t.Context(), `INSERT INTO events (id, type, occurred_at, actor, subject_id, subject_version, data)
		VALUES ($1, 'product.created', now(), '', $1, 1, '{}')`, id); err != nil {
		t.Error(err)
		return
	}
	hold()
	if _, err := tx.Exec(t.Context(), `SELECT pg_sleep(random() * 0.02)`); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	c.any().Pipeline.EventsAppended()
}

func addUser(t testing.TB, db *store.DB, name string) uid.User {
	t.Helper()
	u, err := user.New(user.Profile{Username: name}, []auth.Role{auth.Customer}, nil, time.Now())
	if err != nil {
		t.Error(err)
		return ""
	}
	if u, err = db.Users().Create(context.Background(), claim.None, u, ""); err != nil {
		t.Error(err)
		return ""
	}
	return u.ID
}

// wholeLog reads the log without a hub and checks that it is dense.
func wholeLog(t *testing.T, db *store.DB, want int) []*event.Event {
	t.Helper()
	log, err := db.Events().Read(t.Context(), event.Filter{}, eventlog.Span{Limit: want + 1})
	if err != nil || len(log) != want {
		t.Fatalf("the log has %d events, want %d: %v", len(log), want, err)
	}
	for i, e := range log {
		if e.Cursor.Position != event.Position(i+1) {
			t.Fatalf("event %d has the position %d", i+1, e.Cursor.Position)
		}
	}
	return log
}

func TestFeed_replays_much_while_writes_race_the_seam(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		c := startCluster(t, url, 1, sound)
		n := c.nodes[0]
		past, more := eventlogtest.Size(3000, 100_000), eventlogtest.Size(200, 5000)
		if n.Freezer == nil {
			past = eventlogtest.Size(500, 20_000) // one by one, each synced to disk
		}
		bulk(t, n, url, past)
		state, err := n.DB.Events().State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				s, err := n.Pipeline.Hub.Subscribe(n.Ctx, &event.Cursor{Timeline: state.Timeline}, event.Filter{})
				if err != nil {
					t.Error(err)
					return
				}
				next := event.Position(1)
				for e, err := range eventsOf(n.Ctx, s) {
					if err != nil || e.Cursor.Position != next {
						t.Errorf("got %v, %v, want the event at %d", e, err, next)
						return
					}
					if next++; next > event.Position(past+more) {
						return
					}
				}
			})
		}
		for i := range more {
			addUser(t, n.DB, fmt.Sprint("racer", i))
		}
		all.Wait()
	})
}

// bulk stores many events: at once where that can be done.
func bulk(t testing.TB, n *eventlogtest.Node, url string, count int) {
	t.Helper()
	if !strings.HasPrefix(url, "postgres") {
		for range count {
			addUser(t, n.DB, fmt.Sprint("bulk", inserted.Add(1)))
		}
		return
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `INSERT INTO events (id, type, occurred_at, actor, subject_id, subject_version, data)
		SELECT 'evt' || n, 'product.created', now(), '', 'prd' || n % 7, 1, '{"active":true}' FROM generate_series(1, $1) AS n`, count); err != nil {
		t.Fatal(err)
	}
	n.Pipeline.EventsAppended()
}
