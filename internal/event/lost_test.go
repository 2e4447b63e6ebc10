package event_test

import (
	"context"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// detour returns a new PostgreSQL database's URL and that of it behind a proxy.
func detour(t *testing.T) (direct, around string, p *testenv.Proxy) {
	t.Helper()
	direct = testenv.Postgres(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p = testenv.NewProxy(t, u.Host)
	u.Host = p.Addr
	return direct, u.String(), p
}

func TestFeed_goes_on_after_its_connections_were_lost_without_a_word(t *testing.T) {
	t.Parallel()
	direct, around, proxy := detour(t)
	w := openWorks(t, direct, 1)
	far := startNode(t, around, (&notify.Memory{}).Join(), event.FeedConfig{})
	w.kill() // from here on it is the far node that numbers
	await(t, "the far node numbers events and has read them", func() bool { return far.feed.Numbers() && far.feed.Hub.Head().Position > 0 })
	had := far.feed.Hub.Head().Position
	proxy.Lose()
	w.update(t, w.products[0], 1)
	await(t, "it has numbered and delivered the next event", func() bool { return far.feed.Hub.Head().Position > had })
}

func TestConsumer_goes_on_after_its_connections_were_lost_without_a_word(t *testing.T) {
	t.Parallel()
	direct, around, proxy := detour(t)
	w := openWorks(t, direct, 1)
	far := testenv.Open(t, store.Config{URL: around, MaxConns: 8})
	desk := w.desk("far")
	desk.Offsets, desk.Letters = far.Offsets(), far.Letters()
	consume(t, desk, w.count, updates)
	for range 3 { // it may be in the middle of anything
		w.update(t, w.products[0], 1)
		w.awaitDone(t)
		proxy.Lose()
	}
	w.update(t, w.products[0], 1)
	w.awaitDone(t)
}

func TestConsumer_does_not_blame_an_event_for_a_database_that_hangs(t *testing.T) {
	t.Parallel()
	direct, around, proxy := detour(t)
	w := openWorks(t, direct, 1)
	far := testenv.Open(t, store.Config{URL: around, MaxConns: 8})
	desk := w.desk("far")
	desk.Offsets, desk.Letters = far.Offsets(), far.Letters()
	cfg := updates
	cfg.TryTime = 2 * cfg.TTL
	there, tries := &works{node: &node{db: far}}, atomic.Int32{}
	consume(t, desk, func(ctx context.Context, e *event.Event) error {
		if int(tries.Add(1)) <= cfg.Attempts { // all that it would have
			proxy.Stall()
		} else {
			proxy.Heal()
		}
		return there.count(ctx, e)
	}, cfg)
	w.update(t, w.products[0], 1)
	w.awaitDone(t)
	if got := w.letters(t); len(got) > 0 {
		t.Errorf("there are dead letters, the first because of %+v; want none", got[0].Failure)
	}
}
