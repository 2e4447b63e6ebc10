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

// registry keeps places as the database does, by the clock of the test.
type registry struct {
	lease.Offsets

	mu    sync.Mutex
	all   map[string]*lease.Offset
	saves int
	err   error // of Take and Save, if set

	before func() // what happens just before a Take; may be nil
}

func (r *registry) Acquire(_ context.Context, name, holder string, start event.Position, ttl time.Duration) (lease.Lease, bool, error) {
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
	if r.err != nil || o.Owner != holder && time.Now().Before(o.ExpiresAt) {
		return lease.Lease{}, false, r.err
	}
	o.Owner, o.Epoch, o.ExpiresAt = holder, o.Epoch+1, time.Now().Add(ttl)
	return lease.Lease{Name: name, Owner: holder, Epoch: o.Epoch, Position: o.Position}, true, nil
}

func (r *registry) Renew(_ context.Context, t lease.Lease, done event.Position, ttl time.Duration) (lease.Lease, error) {
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

func (r *registry) Release(_ context.Context, t lease.Lease) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.all[t.Name]; o.Epoch == t.Epoch {
		o.ExpiresAt = time.Now()
	}
	return nil
}

// at returns the place of the sink that the tests have.
func (r *registry) at() event.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.all["sink:s"]; o != nil {
		return o.Position
	}
	return -1
}

func (r *registry) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

// broker is a sink that remembers what it is sent.
type broker struct {
	mu    sync.Mutex
	got   []event.Position
	tries int
	// take says how many of the events the broker confirms, and why not all. It may
	// wait. The broker stores what it confirms.
	take func(ctx context.Context, events []*event.Event) (int, error)
}

func (b *broker) Send(ctx context.Context, events []*event.Event) (n int, err error) {
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

func (b *broker) Close() error { return nil }

func (b *broker) has() []event.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *broker) when(take func(ctx context.Context, events []*event.Event) (int, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.take = take
}

func (b *broker) tried() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tries
}

// exporting is a log of ten events, places and nodes that export to sinks, in a
// bubble of fake time.
type exporting struct {
	ctx     context.Context
	log     *eventlogtest.Memory
	offsets *registry
	said    *strings.Builder
	logger  *slog.Logger // writes to said
}

func runExport(t *testing.T, test func(t *testing.T, e *exporting)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := &exporting{ctx: ctx, log: eventlogtest.NewMemory(), offsets: &registry{all: map[string]*lease.Offset{}}, said: &strings.Builder{}}
		e.logger = eventlogtest.NewTextLogger(e.said)
		e.log.Append(10)
		test(t, e)
		cancel()
		synctest.Wait()
	})
}

// node runs a node that exports to the sink; stop ends it and waits for its end.
func (e *exporting) node(t *testing.T, s export.Sink, cfg export.ExporterConfig) (hub *eventlog.Hub, stop func()) {
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

func TestExporter_sends_all_in_order_and_then_what_comes(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b := &broker{}
		hub, stop := e.node(t, b, export.ExporterConfig{Batch: 3})
		e.log.Append(5)
		hub.Wake()
		synctest.Wait()
		if got := b.has(); !slices.Equal(got, eventlogtest.Positions(1, 15, 1)) {
			t.Errorf("the sink got %v, want 1 to 15", got)
		}
		stop()
		if e.offsets.at() != 15 {
			t.Errorf("the place is %d, want 15", e.offsets.at())
		}
	})
}

func TestExporter_begins_a_new_sink_where_it_is_told(t *testing.T) {
	t.Parallel()
	for head, want := range map[bool][]event.Position{true: eventlogtest.Positions(11, 12, 1), false: eventlogtest.Positions(4, 12, 1)} {
		t.Run(fmt.Sprint("at the head: ", head), func(t *testing.T) {
			t.Parallel()
			runExport(t, func(t *testing.T, e *exporting) {
				e.log.Change(func() { e.log.Oldest = 4 })
				b := &broker{}
				hub, stop := e.node(t, b, export.ExporterConfig{FromHead: head})
				e.log.Append(2)
				hub.Wake()
				synctest.Wait()
				stop()
				_, stop = e.node(t, b, export.ExporterConfig{FromHead: head}) // goes on, and does not begin again
				stop()
				if got := b.has(); !slices.Equal(got, want) {
					t.Errorf("the sink got %v, want %v", got, want)
				}
			})
		})
	}
}

func TestExporter_sends_again_what_was_not_confirmed(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b := &broker{}
		down := func(_ context.Context, events []*event.Event) (int, error) {
			return min(2, len(events)) - 1, errors.New("broken")
		}
		b.when(down)
		_, stop := e.node(t, b, export.ExporterConfig{Batch: 4})
		time.Sleep(3 * time.Second)
		b.when(nil)
		time.Sleep(10 * time.Second)
		stop()
		if got := b.has(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the sink got %v, want 1 to 10", got)
		}
	})
}

func TestExporter_says_once_that_a_sink_stands_still(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b := &broker{}
		b.when(func(context.Context, []*event.Event) (int, error) { return 0, errors.New("connection refused") })
		_, stop := e.node(t, b, export.ExporterConfig{})
		time.Sleep(time.Hour)
		if n := b.tried(); n < 500 || n > 1500 {
			t.Errorf("the sink was tried %d times in an hour, want about once in five seconds", n)
		}
		if e.offsets.at() != 0 {
			t.Errorf("the place is %d, want 0", e.offsets.at())
		}
		b.when(nil)
		time.Sleep(10 * time.Second)
		stop()
		said := e.said.String()
		if strings.Count(said, "stands still") != 1 || strings.Count(said, "goes on") != 1 || strings.Count(said, "\n") != 3 ||
			!strings.Contains(said, "sink=s") || !strings.Contains(said, "connection refused") {
			t.Errorf("the log says:\n%s", said)
		}
		if got := b.has(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the sink got %v, want 1 to 10", got)
		}
	})
}

func TestExporter_hands_over_at_once_when_its_node_stops(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		first, second := &broker{}, &broker{}
		underWay := make(chan struct{})
		first.when(func(ctx context.Context, events []*event.Event) (int, error) {
			close(underWay)
			time.Sleep(time.Second) // the broker takes its time
			return len(events), ctx.Err()
		})
		_, stop := e.node(t, first, export.ExporterConfig{})
		<-underWay
		_, stopSecond := e.node(t, second, export.ExporterConfig{})
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > 1100*time.Millisecond || e.offsets.at() != 10 {
			t.Errorf("the end took %v and left the place at %d, want a second and 10", took, e.offsets.at())
		}
		e.log.Append(1)
		time.Sleep(2 * time.Second)
		stopSecond()
		if got := second.has(); !slices.Equal(got, eventlogtest.Positions(11, 11, 1)) {
			t.Errorf("the next owner sent %v, want 11", got)
		}
	})
}

func TestExporter_does_not_wait_for_a_broker_that_hangs_when_its_node_stops(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b := &broker{}
		b.when(func(ctx context.Context, _ []*event.Event) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		_, stop := e.node(t, b, export.ExporterConfig{})
		time.Sleep(time.Minute) // it keeps the lease meanwhile
		begun := time.Now()
		stop()
		if took := time.Since(begun); took > 3*time.Second || e.offsets.at() != 0 {
			t.Errorf("the end took %v and left the place at %d, want seconds and 0", took, e.offsets.at())
		}
	})
}

func TestExporter_goes_on_elsewhere_when_its_node_dies(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		_, _, err := e.offsets.Acquire(e.ctx, "sink:s", "the dead", 3, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		b := &broker{}
		_, stop := e.node(t, b, export.ExporterConfig{})
		time.Sleep(4 * time.Second)
		if got := b.has(); len(got) > 0 {
			t.Errorf("the sink got %v while somebody else owned it", got)
		}
		time.Sleep(3 * time.Second)
		stop()
		if got := b.has(); !slices.Equal(got, eventlogtest.Positions(4, 10, 1)) {
			t.Errorf("the sink got %v, want 4 to 10", got)
		}
	})
}

func TestExporter_cannot_move_the_place_once_another_has_taken_over(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		frozen, other := &broker{}, &broker{}
		thaw := make(chan struct{})
		frozen.when(func(_ context.Context, events []*event.Event) (int, error) {
			<-thaw
			return len(events), nil
		})
		_, stop := e.node(t, frozen, export.ExporterConfig{Batch: 4})
		e.offsets.mu.Lock() // as if its renewals had stopped
		o := e.offsets.all["sink:s"]
		o.Owner, o.Epoch, o.ExpiresAt = "another", o.Epoch+1, time.Now().Add(time.Minute)
		e.offsets.mu.Unlock()
		time.Sleep(2 * time.Second)
		close(thaw)
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if e.offsets.at() != 0 || len(frozen.has()) > 4 {
			t.Errorf("the place is %d and %v was sent, want 0 and no more than was under way", e.offsets.at(), frozen.has())
		}
		if !strings.Contains(e.said.String(), "another node exports") {
			t.Errorf("the log says:\n%s", e.said)
		}
		stop()
		_, stop = e.node(t, other, export.ExporterConfig{})
		time.Sleep(time.Minute + 2*time.Second)
		stop()
		if got := other.has(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the next owner sent %v, want all", got)
		}
	})
}

func TestExporter_stops_sending_when_it_cannot_renew_its_lease(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b := &broker{}
		b.when(func(_ context.Context, events []*event.Event) (int, error) {
			time.Sleep(100 * time.Millisecond)
			return len(events), nil
		})
		e.log.Append(1000)
		_, stop := e.node(t, b, export.ExporterConfig{Batch: 1})
		time.Sleep(time.Second)
		e.offsets.fail(errors.New("no database"))
		time.Sleep(time.Minute)
		if n := len(b.has()); n > 70 {
			t.Errorf("%d events were sent, want no more than the lease allowed", n)
		}
		e.offsets.fail(nil)
		time.Sleep(2 * time.Minute)
		stop()
		if got := b.has(); got[len(got)-1] != 1010 || e.offsets.at() != 1010 {
			t.Errorf("the last event sent is %d and the place %d, want 1010", got[len(got)-1], e.offsets.at())
		}
	})
}

func TestExporter_lets_another_node_try_when_its_own_broker_is_out_of_reach(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		cut, whole := &broker{}, &broker{}
		cut.when(func(context.Context, []*event.Event) (int, error) { return 0, errors.New("no route to host") })
		_, stop := e.node(t, cut, export.ExporterConfig{})
		_, stopOther := e.node(t, whole, export.ExporterConfig{})
		time.Sleep(30 * time.Second)
		stop()
		stopOther()
		if got := whole.has(); !slices.Equal(got, eventlogtest.Positions(1, 10, 1)) {
			t.Errorf("the other node sent %v, want all", got)
		}
	})
}

func TestExporter_refuses_a_place_beyond_the_log_and_tells_of_what_is_gone(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b := &broker{}
		e.offsets.all["sink:s"] = &lease.Offset{Name: "sink:s", Position: 11}
		_, stop := e.node(t, b, export.ExporterConfig{})
		e.log.Append(5)
		stop()
		if got := b.has(); len(got) > 0 || !strings.Contains(e.said.String(), "the log ends at 10") {
			t.Errorf("the sink got %v, and the log says:\n%s", got, e.said)
		}
		e.offsets.all["sink:s"] = &lease.Offset{Name: "sink:s", Position: 2}
		e.log.Change(func() { e.log.Oldest = 6 })
		_, stop = e.node(t, b, export.ExporterConfig{})
		stop()
		if got := b.has(); !slices.Equal(got, eventlogtest.Positions(6, 15, 1)) || !strings.Contains(e.said.String(), "events were removed before the sink had them") {
			t.Errorf("the sink got %v, and the log says:\n%s", got, e.said)
		}
	})
}

func TestExporter_goes_on_where_the_owner_before_has_just_come_to(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b, place := &broker{}, &lease.Offset{Name: "sink:s", Position: 10}
		e.offsets.all["sink:s"] = place
		e.offsets.before = sync.OnceFunc(func() { // the last that the other node did, after this one has looked how far the log goes
			e.log.Append(5)
			place.Position = 15
		})
		_, stop := e.node(t, b, export.ExporterConfig{})
		e.log.Append(1)
		time.Sleep(3 * time.Second)
		stop()
		if got := b.has(); !slices.Equal(got, eventlogtest.Positions(16, 16, 1)) || strings.Contains(e.said.String(), "forget the sink") {
			t.Errorf("the sink got %v, want 16, and the log says:\n%s", got, e.said)
		}
	})
}

func TestExporter_stores_places_in_moderation(t *testing.T) {
	t.Parallel()
	runExport(t, func(t *testing.T, e *exporting) {
		b := &broker{}
		b.when(func(_ context.Context, events []*event.Event) (int, error) {
			time.Sleep(time.Millisecond)
			return len(events), nil
		})
		e.log.Append(10_000)
		_, stop := e.node(t, b, export.ExporterConfig{Batch: 1})
		time.Sleep(10 * time.Second)
		stop()
		if e.offsets.saves > 120 || e.offsets.at() < 9_000 {
			t.Errorf("%d saves in ten seconds, up to %d", e.offsets.saves, e.offsets.at())
		}
	})
}
