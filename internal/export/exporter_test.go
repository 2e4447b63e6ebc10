package export_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/export"
	"github.com/backplane-dev/backplane/internal/lease"
)

// fakeLeases keeps leases and offsets as the database does, by the clock of the test.
type fakeLeases struct {
	lease.Store

	mu    sync.Mutex
	all   map[string]*lease.Offset
	saves int
	err   error // of Acquire and Renew, if set

	before func() // runs before each Acquire; may be nil
}

func (r *fakeLeases) Acquire(_ context.Context, name, owner string, start event.Position, ttl time.Duration) (lease.Lease, bool, error) {
	if r.before != nil {
		r.before()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.all[name]
	if o == nil {
		o = &lease.Offset{Name: name, Position: start}
		r.all[name] = o
	}
	if r.err != nil || o.Owner != owner && time.Now().Before(o.ExpiresAt) {
		return lease.Lease{}, false, r.err
	}
	o.Owner, o.Epoch, o.ExpiresAt = owner, o.Epoch+1, time.Now().Add(ttl)
	return lease.Lease{Name: name, Owner: owner, Epoch: o.Epoch, Position: o.Position}, true, nil
}

func (r *fakeLeases) Renew(_ context.Context, t lease.Lease, done event.Position, ttl time.Duration) (lease.Lease, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.all[t.Name]
	if r.err != nil {
		return t, r.err
	}
	if o.Epoch != t.Epoch || !time.Now().Before(o.ExpiresAt) {
		return t, lease.ErrLost
	}
	o.Position, o.ExpiresAt = max(o.Position, done), time.Now().Add(ttl)
	r.saves++
	t.Position = o.Position
	return t, nil
}

func (r *fakeLeases) Release(_ context.Context, t lease.Lease) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.all[t.Name]; o.Epoch == t.Epoch {
		o.ExpiresAt = time.Now()
	}
	return nil
}

// offset returns the offset of the sink that the tests have.
func (r *fakeLeases) offset() event.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.all["sink:s"]; o != nil {
		return o.Position
	}
	return -1
}

func (r *fakeLeases) failWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// fakeSink is a sink that remembers what it is sent.
type fakeSink struct {
	mu    sync.Mutex
	got   []event.Position
	tries int
	// take says how many of the events the broker confirms, and why not all. It may
	// wait. The broker stores what it confirms.
	take func(ctx context.Context, events []*event.Event) (int, error)
}

func (b *fakeSink) Send(ctx context.Context, events []*event.Event) (n int, err error) {
	b.mu.Lock()
	b.tries++
	take := b.take
	b.mu.Unlock()
	n = len(events)
	if take != nil {
		n, err = take(ctx, events)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events[:n] {
		b.got = append(b.got, e.Cursor.Position)
	}
	return n, err
}

func (b *fakeSink) Close() error { return nil }

func (b *fakeSink) received() []event.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *fakeSink) confirmWith(take func(ctx context.Context, events []*event.Event) (int, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.take = take
}

func (b *fakeSink) attempts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tries
}

// fixture is a log of ten events, places and nodes that export to sinks, in a
// bubble of fake time.
type fixture struct {
	ctx     context.Context
	log     *eventlogtest.Memory
	offsets *fakeLeases
	said    *strings.Builder
	logger  *slog.Logger // writes to said
}

func runExport(t *testing.T, test func(t *testing.T, e *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := &fixture{ctx: ctx, log: eventlogtest.NewMemory(), offsets: &fakeLeases{all: map[string]*lease.Offset{}}, said: &strings.Builder{}}
		e.logger = eventlogtest.NewTextLogger(e.said)
		e.log.Append(10)
		test(t, e)
		cancel()
		synctest.Wait()
	})
}

// startNode runs a node that exports to the sink; stop ends it and waits for its end.
func (e *fixture) startNode(t *testing.T, s export.Sink, cfg export.Config) (hub *eventlog.Hub, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(e.ctx)
	hub = eventlogtest.NewHub(t, e.log, eventlog.HubConfig{})
	x, err := export.NewExporter("s", eventlog.NewLog(e.log), hub, e.offsets, s, e.logger, cfg)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() { _ = hub.Run(ctx) }()
	go func() {
		defer close(over)
		if err := x.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	synctest.Wait()
	return hub, func() {
		cancel()
		<-over
	}
}

func TestExporter_sends_the_log_in_order_and_then_new_events(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b := &fakeSink{}
		hub, stop := e.startNode(t, b, export.Config{Batch: 3})
		e.log.Append(5)
		hub.Wake()
		synctest.Wait()
		if got := b.received(); !slices.Equal(got, eventlogtest.Positions(1, 15, 1)) {
			t.Errorf("the sink got %v, want 1 to 15", got)
		}
		stop()
		if e.offsets.offset() != 15 {
			t.Errorf("the offset is %d, want 15", e.offsets.offset())
		}
	})
}

func TestExporter_begins_a_new_sink_at_the_configured_start(t *testing.T) {
	t.Parallel()
	for head, want := range map[bool][]event.Position{true: eventlogtest.Positions(11, 12, 1), false: eventlogtest.Positions(4, 12, 1)} {
		t.Run(fmt.Sprint("at the head: ", head), func(t *testing.T) {
			t.Parallel()
			runExport(t, func(t *testing.T, e *fixture) {
				e.log.Change(func() { e.log.Oldest = 4 })
				b := &fakeSink{}
				hub, stop := e.startNode(t, b, export.Config{FromHead: head})
				e.log.Append(2)
				hub.Wake()
				synctest.Wait()
				stop()
				_, stop = e.startNode(t, b, export.Config{FromHead: head}) // goes on, and does not begin again
				stop()
				if got := b.received(); !slices.Equal(got, want) {
					t.Errorf("the sink got %v, want %v", got, want)
				}
			})
		})
	}
}

func TestExporter_resends_unconfirmed_events(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b := &fakeSink{}
		down := func(_ context.Context, events []*event.Event) (int, error) {
			return min(2, len(events)) - 1, errors.New("broken")
		}
		b.confirmWith(down)
		_, stop := e.startNode(t, b, export.Config{Batch: 4})
		time.Sleep(3 * time.Second)
		b.confirmWith(nil)
		time.Sleep(10 * time.Second)
		stop()
		if got := b.received(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the sink got %v, want 1 to 10", got)
		}
	})
}

func TestExporter_logs_a_stalled_sink_once(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b := &fakeSink{}
		b.confirmWith(func(context.Context, []*event.Event) (int, error) { return 0, errors.New("connection refused") })
		_, stop := e.startNode(t, b, export.Config{})
		time.Sleep(time.Hour)
		if n := b.attempts(); n < 500 || n > 1500 {
			t.Errorf("the sink was tried %d times in an hour, want about once in five seconds", n)
		}
		if e.offsets.offset() != 0 {
			t.Errorf("the offset is %d, want 0", e.offsets.offset())
		}
		b.confirmWith(nil)
		time.Sleep(10 * time.Second)
		stop()
		said := e.said.String()
		if strings.Count(said, "sink export stalled") != 1 || strings.Count(said, "sink export resumed") != 1 || strings.Count(said, "\n") != 3 ||
			!strings.Contains(said, "sink=s") || !strings.Contains(said, "connection refused") {
			t.Errorf("the log says:\n%s", said)
		}
		if got := b.received(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the sink got %v, want 1 to 10", got)
		}
	})
}

func TestExporter_releases_its_lease_when_its_node_stops(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		first, second := &fakeSink{}, &fakeSink{}
		underWay := make(chan struct{})
		first.confirmWith(func(ctx context.Context, events []*event.Event) (int, error) {
			close(underWay)
			time.Sleep(time.Second) // the broker takes its time
			return len(events), ctx.Err()
		})
		_, stop := e.startNode(t, first, export.Config{})
		<-underWay
		_, stopSecond := e.startNode(t, second, export.Config{})
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > 1100*time.Millisecond || e.offsets.offset() != 10 {
			t.Errorf("the end took %v and left the offset at %d, want a second and 10", took, e.offsets.offset())
		}
		e.log.Append(1)
		time.Sleep(2 * time.Second)
		stopSecond()
		if got := second.received(); !slices.Equal(got, eventlogtest.Positions(11, 11, 1)) {
			t.Errorf("the next owner sent %v, want 11", got)
		}
	})
}

func TestExporter_stops_although_its_broker_hangs(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b := &fakeSink{}
		b.confirmWith(func(ctx context.Context, _ []*event.Event) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		_, stop := e.startNode(t, b, export.Config{})
		time.Sleep(time.Minute) // it keeps the lease meanwhile
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > 3*time.Second || e.offsets.offset() != 0 {
			t.Errorf("the end took %v and left the offset at %d, want seconds and 0", took, e.offsets.offset())
		}
	})
}

func TestExporter_resumes_on_another_node_when_its_node_dies(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		_, _, err := e.offsets.Acquire(e.ctx, "sink:s", "the dead", 3, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		b := &fakeSink{}
		_, stop := e.startNode(t, b, export.Config{})
		time.Sleep(4 * time.Second)
		if got := b.received(); len(got) > 0 {
			t.Errorf("the sink got %v while another node owned it", got)
		}
		time.Sleep(3 * time.Second)
		stop()
		if got := b.received(); !slices.Equal(got, eventlogtest.Positions(4, 10, 1)) {
			t.Errorf("the sink got %v, want 4 to 10", got)
		}
	})
}

func TestExporter_with_a_stale_epoch_cannot_move_the_offset(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		frozen, other := &fakeSink{}, &fakeSink{}
		thaw := make(chan struct{})
		frozen.confirmWith(func(_ context.Context, events []*event.Event) (int, error) {
			<-thaw
			return len(events), nil
		})
		_, stop := e.startNode(t, frozen, export.Config{Batch: 4})
		e.offsets.mu.Lock() // as if its renewals had stopped
		o := e.offsets.all["sink:s"]
		o.Owner, o.Epoch, o.ExpiresAt = "another", o.Epoch+1, time.Now().Add(time.Minute)
		e.offsets.mu.Unlock()
		time.Sleep(2 * time.Second)
		close(thaw)
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if e.offsets.offset() != 0 || len(frozen.received()) > 4 {
			t.Errorf("the offset is %d and %v was sent, want 0 and no more than was under way", e.offsets.offset(), frozen.received())
		}
		if !strings.Contains(e.said.String(), "another node owns the lease") {
			t.Errorf("the log says:\n%s", e.said)
		}
		stop()
		_, stop = e.startNode(t, other, export.Config{})
		time.Sleep(time.Minute + 2*time.Second)
		stop()
		if got := other.received(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the next owner sent %v, want all", got)
		}
	})
}

func TestExporter_stops_sending_when_it_cannot_renew_its_lease(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b := &fakeSink{}
		b.confirmWith(func(_ context.Context, events []*event.Event) (int, error) {
			time.Sleep(100 * time.Millisecond)
			return len(events), nil
		})
		e.log.Append(1000)
		_, stop := e.startNode(t, b, export.Config{Batch: 1})
		time.Sleep(time.Second)
		e.offsets.failWith(errors.New("no database"))
		time.Sleep(time.Minute)
		if n := len(b.received()); n > 70 {
			t.Errorf("%d events were sent, want no more than the lease allowed", n)
		}
		e.offsets.failWith(nil)
		time.Sleep(2 * time.Minute)
		stop()
		if got := b.received(); got[len(got)-1] != 1010 || e.offsets.offset() != 1010 {
			t.Errorf("the last event sent is %d and the offset %d, want 1010", got[len(got)-1], e.offsets.offset())
		}
	})
}

func TestExporter_releases_its_lease_when_it_cannot_reach_the_broker(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		cut, whole := &fakeSink{}, &fakeSink{}
		cut.confirmWith(func(context.Context, []*event.Event) (int, error) { return 0, errors.New("no route to host") })
		_, stop := e.startNode(t, cut, export.Config{})
		_, stopOther := e.startNode(t, whole, export.Config{})
		time.Sleep(30 * time.Second)
		stop()
		stopOther()
		if got := whole.received(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the other node sent %v, want all", got)
		}
	})
}

func TestExporter_refuses_an_offset_beyond_the_head_and_logs_removed_events(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b := &fakeSink{}
		e.offsets.all["sink:s"] = &lease.Offset{Name: "sink:s", Position: 11}
		_, stop := e.startNode(t, b, export.Config{})
		e.log.Append(5)
		stop()
		if got := b.received(); len(got) > 0 || !strings.Contains(e.said.String(), "the log ends at 10") {
			t.Errorf("the sink got %v, and the log says:\n%s", got, e.said)
		}
		e.offsets.all["sink:s"] = &lease.Offset{Name: "sink:s", Position: 2}
		e.log.Change(func() { e.log.Oldest = 6 })
		_, stop = e.startNode(t, b, export.Config{})
		stop()
		if got := b.received(); !slices.Equal(got, eventlogtest.Positions(6, 15, 1)) || !strings.Contains(e.said.String(), "retention removed events before the sink received them") {
			t.Errorf("the sink got %v, and the log says:\n%s", got, e.said)
		}
	})
}

func TestExporter_resumes_at_the_offset_the_previous_owner_saved_last(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b, stored := &fakeSink{}, &lease.Offset{Name: "sink:s", Position: 10}
		e.offsets.all["sink:s"] = stored
		e.offsets.before = sync.OnceFunc(func() { // the last that the other node did, after this one has looked how far the log goes
			e.log.Append(5)
			stored.Position = 15
		})
		_, stop := e.startNode(t, b, export.Config{})
		e.log.Append(1)
		time.Sleep(3 * time.Second)
		stop()
		if got := b.received(); !slices.Equal(got, eventlogtest.Positions(16, 16, 1)) || strings.Contains(e.said.String(), "forget the sink") {
			t.Errorf("the sink got %v, want 16, and the log says:\n%s", got, e.said)
		}
	})
}

func TestExporter_saves_offsets_at_most_once_per_interval(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *fixture) {
		b := &fakeSink{}
		b.confirmWith(func(_ context.Context, events []*event.Event) (int, error) {
			time.Sleep(time.Millisecond)
			return len(events), nil
		})
		e.log.Append(10_000)
		_, stop := e.startNode(t, b, export.Config{Batch: 1})
		time.Sleep(10 * time.Second)
		stop()
		if e.offsets.saves > 120 || e.offsets.offset() < 9_000 {
			t.Errorf("%d saves in ten seconds, up to %d", e.offsets.saves, e.offsets.offset())
		}
	})
}
