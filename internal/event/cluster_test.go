package event_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
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
	memory := &notify.Memory{}
	for range size {
		var b event.Bus = memory.Join()
		if strings.HasPrefix(url, "postgres") {
			pg, err := notify.NewPostgres(url, quiet())
			if err != nil {
				t.Fatal(err)
			}
			b = pg
		}
		switch w {
		case cut:
			b = (&notify.Memory{}).Join()
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
				break // the node died meanwhile
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
