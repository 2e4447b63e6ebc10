package eventlog_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// cluster is some nodes on one database.
type cluster struct {
	url   string
	nodes []*eventlogtest.Node

	mu   sync.Mutex
	dead map[*eventlogtest.Node]bool
}

// wire is what becomes of what nodes tell one another.
type wire string

const (
	sound wire = "with a bus"
	cut   wire = "with the bus cut"
	liar  wire = "with a bus that loses, repeats, reorders and lies"
)

// lying is a bus that is not to be trusted.
type lying struct{ eventlog.Notifier }

func (l lying) Notify(ctx context.Context, h event.Notification) error {
	for range rand.IntN(3) {
		if err := l.Notifier.Notify(ctx, event.Notification{Head: max(0, h.Head+event.Position(rand.IntN(9)-4)), Waiting: rand.IntN(2) == 0}); err != nil {
			return err
		}
	}
	return nil
}

// startCluster runs nodes that hear of one another as in production, or worse.
func startCluster(t testing.TB, url string, size int, w wire) *cluster {
	t.Helper()
	c := &cluster{url: url, dead: make(map[*eventlogtest.Node]bool)}
	db := testenv.Open(t, store.Config{URL: url}) // migrates
	memory := &notify.Memory{}
	for range size {
		var b eventlog.Notifier = memory.Join()
		if strings.HasPrefix(url, "postgres") {
			b = notify.NewPostgres(db.Connect, eventlogtest.DiscardLogger())
		}
		switch w {
		case cut:
			b = (&notify.Memory{}).Join()
		case liar:
			b = lying{b}
		case sound:
		}
		c.nodes = append(c.nodes, eventlogtest.StartNode(t, url, b, eventlog.PipelineConfig{Hub: eventlog.HubConfig{Ring: 64, Batch: 32}, Sequencer: eventlog.SequencerConfig{Batch: 16}}))
	}
	return c
}

// any returns a node that lives.
func (c *cluster) any() *eventlogtest.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if n := c.nodes[rand.IntN(len(c.nodes))]; !c.dead[n] {
			return n
		}
	}
}

func (c *cluster) kill(n *eventlogtest.Node) {
	c.mu.Lock()
	c.dead[n] = true
	c.mu.Unlock()
	n.Kill()
}

// collect receives the events that match up to the position last, from the
// cursor on. It changes to another node now and then, and when its node dies.
func (c *cluster) collect(t *testing.T, from event.Cursor, f event.Filter, last event.Position, seen *progress) (got []*event.Event) {
	t.Helper()
	for from.Position < last {
		n := c.any()
		s, err := n.Pipeline.Hub.Subscribe(n.Ctx, &from, f)
		if n.Ctx.Err() != nil {
			continue // the node died
		}
		if err != nil {
			t.Errorf("Subscribe after %s: %v", from, err)
			return got
		}
		for moves := rand.IntN(20); moves > 0 && from.Position < last; moves-- {
			events, err := s.Next(n.Ctx)
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
