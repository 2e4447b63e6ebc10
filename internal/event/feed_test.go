package event_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"backplane/internal/auth"
	"backplane/internal/bus"
	"backplane/internal/event"
	"backplane/internal/store"
	"backplane/internal/testenv"
	"backplane/internal/uid"
	"backplane/internal/user"
)

// node is a server as far as the log goes.
type node struct {
	db       *store.DB
	feed     *event.Feed
	freezer  *freezer        // on PostgreSQL
	ctx      context.Context // ends when the node does
	kill     context.CancelFunc
	finished chan error
}

// startNode runs a node on the database. Each has connections of its own.
func startNode(t testing.TB, url string, b event.Bus, cfg event.FeedConfig) *node {
	t.Helper()
	n := &node{db: testenv.Open(t, store.Config{URL: url, MaxConns: 8}), finished: make(chan error, 1)}
	var numbering event.Numbering
	seq, err := n.db.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	if seq != nil {
		n.freezer = &freezer{Numbering: seq}
		numbering = n.freezer
	}
	n.feed, err = event.NewFeed(event.NewLog(n.db.Events()), numbering, b, quiet(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.db.OnAppend(n.feed.Appended)
	n.ctx, n.kill = context.WithCancel(context.Background())
	go func() { n.finished <- n.feed.Run(n.ctx) }()
	t.Cleanup(func() {
		n.kill()
		if err := <-n.finished; err != nil {
			t.Errorf("the feed ended with %v", err)
		}
		if seq != nil {
			if err := seq.Close(); err != nil {
				t.Errorf("close the sequence: %v", err)
			}
		}
	})
	return n
}

// cluster is some nodes on one database.
type cluster struct {
	url   string
	nodes []*node

	mu   sync.Mutex
	dead map[*node]bool
}

// wire is what becomes of what nodes tell one another.
type wire string

const (
	sound wire = "with a bus"
	cut   wire = "with the bus cut"
	liar  wire = "with a bus that loses, repeats, reorders and lies"
)

// lying is a bus that is not to be trusted.
type lying struct{ event.Bus }

func (l lying) Send(ctx context.Context, h event.Hint) error {
	for range rand.IntN(3) {
		if err := l.Bus.Send(ctx, event.Hint{Head: max(0, h.Head+event.Position(rand.IntN(9)-4)), Waiting: rand.IntN(2) == 0}); err != nil {
			return err
		}
	}
	return nil
}

// startCluster runs nodes that hear of one another as in production, or worse.
func startCluster(t testing.TB, url string, size int, w wire) *cluster {
	t.Helper()
	c := &cluster{url: url, dead: make(map[*node]bool)}
	testenv.Open(t, store.Config{URL: url}) // migrates
	memory := &bus.Memory{}
	for range size {
		var b event.Bus = memory.Join()
		if strings.HasPrefix(url, "postgres") {
			pg, err := bus.NewPostgres(url, quiet())
			if err != nil {
				t.Fatal(err)
			}
			b = pg
		}
		switch w {
		case cut:
			b = (&bus.Memory{}).Join()
		case liar:
			b = lying{b}
		case sound:
		}
		c.nodes = append(c.nodes, startNode(t, url, b, event.FeedConfig{Hub: event.HubConfig{Ring: 64, Batch: 32}, Sequencer: event.SequencerConfig{Batch: 16}}))
	}
	return c
}

// any returns a node that lives.
func (c *cluster) any() *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if n := c.nodes[rand.IntN(len(c.nodes))]; !c.dead[n] {
			return n
		}
	}
}

func (c *cluster) kill(n *node) {
	c.mu.Lock()
	c.dead[n] = true
	c.mu.Unlock()
	n.kill()
}

// collect receives the events that match up to the position last, from the
// cursor on. It changes to another node now and then, and when its node dies.
func (c *cluster) collect(t *testing.T, from event.Cursor, f event.Filter, last event.Position, seen *progress) (got []*event.Event) {
	t.Helper()
	for from.Position < last {
		n := c.any()
		s, err := n.feed.Hub.Subscribe(n.ctx, &from, f)
		if n.ctx.Err() != nil {
			continue // the node died
		}
		if err != nil {
			t.Errorf("Subscribe after %s: %v", from, err)
			return got
		}
		for moves := rand.IntN(20); moves > 0 && from.Position < last; moves-- {
			events, err := s.Next(n.ctx)
			if err != nil {
				break // here too
			}
			got = append(got, events...)
			from = events[len(events)-1].Cursor
			seen.rise(from.Position)
		}
		s.Close()
	}
	return got
}

// size is how much of something there is in CI, and in a soak.
func size(small, large int) int {
	if testenv.Soak() {
		return large
	}
	return small
}

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
				each := size(8, 400)
				total := event.Position(writers * each)
				state, err := c.nodes[0].db.Events().State(t.Context())
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
				log := wholeLog(t, c.any().db, int(total))
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
		if n.feed.Numbers() {
			frozen = n
		}
	}
	frozen.freezer.freeze()
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
	frozen.freezer.thaw()
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
					addUser(t, c.any().db, fmt.Sprintf("w%dn%d", w, i))
				}
			})
		}
		return
	}
	for w := range writers {
		group.Go(func() {
			for i := range each {
				if i%4 == 3 { // as an application would
					addUser(t, c.any().db, fmt.Sprintf("w%dn%d", w, i))
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
	c.any().feed.Appended()
}

func addUser(t testing.TB, db *store.DB, name string) uid.User {
	t.Helper()
	u, err := user.New(user.Profile{Username: name}, []auth.Role{auth.Customer}, nil, time.Now())
	if err != nil {
		t.Error(err)
		return ""
	}
	if u, err = db.Users().Create(context.Background(), u, ""); err != nil {
		t.Error(err)
		return ""
	}
	return u.ID
}

// wholeLog reads the log without a hub and checks that it is dense.
func wholeLog(t *testing.T, db *store.DB, want int) []*event.Event {
	t.Helper()
	log, err := db.Events().Read(t.Context(), event.Filter{}, event.Span{Limit: want + 1})
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
		past, more := size(3000, 100_000), size(200, 5000)
		if n.freezer == nil {
			past = size(500, 20_000) // one by one, each synced to disk
		}
		bulk(t, n, url, past)
		state, err := n.db.Events().State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				s, err := n.feed.Hub.Subscribe(n.ctx, &event.Cursor{Timeline: state.Timeline}, event.Filter{})
				if err != nil {
					t.Error(err)
					return
				}
				next := event.Position(1)
				for e, err := range s.Events(n.ctx) {
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
			addUser(t, n.db, fmt.Sprint("racer", i))
		}
		all.Wait()
	})
}

// bulk stores many events: at once where that can be done.
func bulk(t testing.TB, n *node, url string, count int) {
	t.Helper()
	if !strings.HasPrefix(url, "postgres") {
		for range count {
			addUser(t, n.db, fmt.Sprint("bulk", inserted.Add(1)))
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
	n.feed.Appended()
}

// BenchmarkFeed_latency is the time from the begin of a commit to a subscriber,
// for one writer at a time.
func BenchmarkFeed_latency(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": testenv.SQLite, "postgres": testenv.Postgres} {
		for _, where := range []string{"same node", "other node"} {
			b.Run(name+"/"+where, func(b *testing.B) {
				c := startCluster(b, url(b), 2, sound)
				reader, writer := c.nodes[0], c.nodes[0]
				if where == "other node" {
					writer = c.nodes[1]
				}
				s, err := reader.feed.Hub.Subscribe(reader.ctx, nil, event.Filter{})
				if err != nil {
					b.Fatal(err)
				}
				var times []time.Duration
				var committed time.Time
				writer.db.OnAppend(func() { committed = time.Now(); writer.feed.Appended() })
				for b.Loop() {
					addUser(b, writer.db, fmt.Sprint("u", inserted.Add(1)))
					if _, err := s.Next(reader.ctx); err != nil {
						b.Fatal(err)
					}
					times = append(times, time.Since(committed))
				}
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// BenchmarkHub_fanOut is how many events all subscribers of a hub get together.
func BenchmarkHub_fanOut(b *testing.B) {
	for _, readers := range []int{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(readers), func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			m := newMemory()
			h := newHub(b, m, event.HubConfig{})
			go func() { _ = h.Run(ctx) }()
			var all sync.WaitGroup
			const perRound = 100
			for range readers {
				s := subscribe(ctx, b, h, &event.Cursor{Timeline: "a"}, event.Filter{})
				go func() {
					got := 0
					for _, err := range s.Events(ctx) {
						if err != nil {
							return
						}
						if got++; got == perRound {
							got = 0
							all.Done()
						}
					}
				}()
			}
			rounds := 0
			for b.Loop() {
				all.Add(readers)
				m.add(perRound)
				h.Wake()
				all.Wait()
				rounds++
			}
			b.ReportMetric(float64(rounds*perRound*readers)/b.Elapsed().Seconds(), "deliveries/s")
			cancel()
		})
	}
}
