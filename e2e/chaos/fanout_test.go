package chaos

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/testenv"
)

const followAges = `subscription($after: Cursor) { events(after: $after, types: [PRODUCT_UPDATED]) { cursor occurredAt data } }`

// subscriber is a client that records the events it receives and how old they were.
type subscriber struct {
	open    func(after string) (harness.Subscription, error)
	heard   atomic.Int64
	mu      sync.Mutex
	cursors []string
	ages    []time.Duration
	ends    []string // why connections ended
}

// subscribe receives until ctx ends, with a pause before each message. When a connection
// ends it resumes after the last event that it received.
func (e *subscriber) subscribe(ctx context.Context, head string, between func()) {
	for last := head; ctx.Err() == nil; {
		l, err := e.open(last)
		if err == nil {
			last, err = e.receive(l, last, between)
		}
		e.mu.Lock()
		e.ends = append(e.ends, err.Error())
		e.mu.Unlock()
		harness.Pause(ctx, 100*time.Millisecond)
	}
}

// receive receives until the connection ends, and returns the last cursor and the reason.
func (e *subscriber) receive(l harness.Subscription, last string, between func()) (string, error) {
	for {
		between()
		m, err := l.Next()
		if err != nil || m.End != "" || m.Code != "" {
			return last, errors.Join(err, errors.New(m.End+m.Code))
		}
		last = m.Cursor
		if m.Event == nil { // a keep-alive with a cursor
			continue
		}
		at, _ := time.Parse(time.RFC3339Nano, harness.Text(m.Event, "occurredAt"))
		e.mu.Lock()
		e.cursors, e.ages = append(e.cursors, m.Cursor), append(e.ages, time.Since(at))
		e.mu.Unlock()
		e.heard.Add(1)
	}
}

// latencyP99 returns the 99th percentile of the recorded latencies, and clears them.
func latencyP99(ears []*subscriber) time.Duration {
	var all []time.Duration
	for _, e := range ears {
		e.mu.Lock()
		all, e.ages = append(all, e.ages...), nil
		e.mu.Unlock()
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// pace is the interval between transactions, and the number of products that each changes.
const (
	perSecond = 1000
	atOnce    = 50
)

// publishChanges changes products, at the pace, until there are n events, and waits
// until all subscribers have received them. It returns the events per second.
func publishChanges(t *testing.T, f *fleet, n int, ears []*subscriber) (rate float64) {
	t.Helper()
	before := ears[0].heard.Load()
	start := time.Now()
	for done := 0; done < n; done += atOnce {
		harness.Pause(t.Context(), time.Until(start.Add(time.Duration(done)*time.Second/perSecond)))
		if err := f.changeProduct(t.Context(), atOnce); err != nil {
			t.Fatal(err)
		}
	}
	rate = float64(n) / time.Since(start).Seconds()
	harness.EventuallyWithin(t, 5*time.Minute, "all have heard it", func() bool {
		return !slices.ContainsFunc(ears, func(e *subscriber) bool { return e.heard.Load() < before+int64(n) })
	})
	return rate
}

// changeProduct changes a number of products in a transaction.
func (f *fleet) changeProduct(ctx context.Context, number int) error {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it has nothing to do
	if _, err := changeProducts(ctx, tx, number); err != nil {
		return err
	}
	return errors.Join(tx.Commit(), f.wake(ctx))
}

// TestServer_keeps_a_slow_subscriber_from_slowing_others sends clients that read
// one message per second more than all buffers on the way hold.
func TestServer_keeps_a_slow_subscriber_from_slowing_others(t *testing.T) { //nolint:paralleltest // it measures time and memory
	if testing.Short() {
		t.Skip("short run")
	}
	f := newFleet(t, 1, testenv.Postgres(t)).withNotifier()
	if _, err := f.db.ExecContext(t.Context(), `UPDATE products SET description = repeat('€', 700)`); err != nil { // 2.1 KB
		t.Fatal(err)
	}
	p, root := f.nodes[0], f.nodeFor(f.root.Token)
	head := root.LogHead(t)
	ears := func(n int, between func()) (all []*subscriber) {
		for i := range n {
			transport := harness.Transports[[]string{"socket", "event stream"}[i%2]]
			e := &subscriber{open: func(after string) (harness.Subscription, error) {
				return transport(t.Context(), root, followAges, map[string]any{"after": after})
			}}
			all = append(all, e)
			go e.subscribe(t.Context(), head, between)
		}
		return all
	}
	quick := ears(10, func() {})
	few, many := harness.Size(2000, 10_000), harness.Size(10_000, 120_000) // 22 MB, which is more than the ring holds, or 260 MB
	publishChanges(t, f, few, quick)
	alone, memory := latencyP99(quick), harness.ResidentBytes(t, p)

	hurry := make(chan struct{})
	slow := ears(4, func() {
		select {
		case <-hurry:
		case <-time.After(time.Second):
		}
	})
	start := time.Now()
	rate := publishChanges(t, f, many, quick)
	beside, grown := latencyP99(quick), harness.ResidentBytes(t, p)-memory
	t.Logf("at %.0f events/s the p99 of others is %v, alone it was %v; the server grew by %d MiB", rate, beside, alone, grown>>20)
	for _, e := range slow {
		if n := e.heard.Load(); n > int64(time.Since(start).Seconds())+2 {
			t.Fatalf("a slow listener has heard %d events, want one a second", n)
		}
	}
	if limit := 3*alone + 250*time.Millisecond; beside > limit {
		t.Errorf("the p99 of others is %v beside slow listeners, want at most %v", beside, limit)
	}
	if grown > 128<<20 {
		t.Errorf("the server grew by %d MiB, want no more than its caches", grown>>20)
	}
	close(hurry)
	harness.EventuallyWithin(t, 10*time.Minute, "the slow ones have caught up", func() bool {
		return !slices.ContainsFunc(slow, func(e *subscriber) bool { return e.heard.Load() < int64(few+many) })
	})
	for i, e := range slow {
		if len(e.ends) > 0 {
			t.Logf("slow listener %d was sent away: %q", i, e.ends)
		}
		if !slices.Equal(e.cursors, quick[0].cursors) {
			t.Errorf("slow listener %d heard %d events, and not the %d of the others in their order", i, len(e.cursors), len(quick[0].cursors))
		}
	}
}

func TestServer_replays_a_long_log_while_it_grows(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		seeded := harness.Size(3500, 35_000)
		harness.RunCommand(t, database, "migrate")
		harness.RunCommand(t, database, "seed", "--users", "200", "--orders", strconv.Itoa(seeded), "--lines", "2")
		s := harness.OpenShop(t, testenv.Server(t, harness.Settings(database)...), 3, 1_000_000, 3)
		codec := harness.Cursors(t, database)
		start := event.Cursor{Timeline: harness.DecodeCursor(t, codec, s.Admin.LogHead(t)).Timeline}
		a := &harness.Audience{T: t, Nodes: []harness.Caller{s.Admin}, After: codec.Encode(start)}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the replay did not end"))
		defer cancel()
		var over atomic.Bool
		done := make(chan *harness.OrderLedger, 1)
		go func() { done <- s.PlaceOrders(ctx, 4, func(int) bool { return !over.Load() }, harness.Never) }()
		for range harness.Size(1, 5) {
			a.Join("event stream")
			a.Join("socket")
		}
		past := int(harness.DecodeCursor(t, codec, s.Admin.LogHead(t)).Position) // positions are dense
		a.AwaitEvents(past + 20)                                                 // across the change from replay to live events
		over.Store(true)
		l := <-done
		events := s.Admin.LogAfter(t, a.After, seeded+len(l.Placed))
		if len(events) < harness.Size(10_000, 100_000) {
			t.Errorf("the log has %d events, too few for this test", len(events))
		}
		a.Verify(events)
	})
}
