package eventlog_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// fakePositions is a PositionStore without a database, for any number of sequencers.
type fakePositions struct {
	mu      sync.Mutex
	lease   lease.Lease
	expires time.Time
	waiting int
	calls   int
	err     error
}

func (d *fakePositions) Acquire(_ context.Context, holder string, ttl time.Duration) (lease.Lease, bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	if d.err != nil || d.lease.Owner != holder && time.Now().Before(d.expires) {
		return lease.Lease{}, false, d.err
	}
	d.lease.Owner, d.lease.Epoch, d.expires = holder, d.lease.Epoch+1, time.Now().Add(ttl)
	return d.lease, true, nil
}

func (d *fakePositions) AssignPositions(_ context.Context, l lease.Lease, ttl time.Duration, limit int) (int, lease.Lease, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	switch {
	case d.err != nil:
		return 0, l, d.err
	case l != d.lease || !time.Now().Before(d.expires):
		return 0, l, lease.ErrLost
	}
	n := min(limit, d.waiting)
	d.waiting -= n
	d.lease.Position += event.Position(n)
	d.expires = time.Now().Add(ttl)
	return n, d.lease, nil
}

func (d *fakePositions) Release(_ context.Context, l lease.Lease) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.Owner == d.lease.Owner && l.Epoch == d.lease.Epoch {
		d.expires = time.Now()
	}
	return nil
}

func (d *fakePositions) EventAt(context.Context, event.Position) (uid.Event, error) { return "", nil }

func (d *fakePositions) AbandonTimeline(context.Context, string) error { return nil }

func (d *fakePositions) VerifyPlace(context.Context, bool) (bool, error) { return true, nil }

func (d *fakePositions) Epoch() int64 { return 0 }

func (d *fakePositions) append(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting += n
}

func (d *fakePositions) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// state returns what is left to number, and how often the store was called.
func (d *fakePositions) state() (waiting, calls int, head event.Position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting, d.calls, d.lease.Position
}

func newSequencer(t *testing.T, n eventlog.PositionStore, cfg eventlog.SequencerConfig) (s *eventlog.Sequencer, announced *[]event.Position) {
	t.Helper()
	announced = new([]event.Position)
	s, err := eventlog.NewSequencer(n, func(p event.Position) { *announced = append(*announced, p) }, eventlogtest.DiscardLogger(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, announced
}

// start runs the sequencer and returns a function that stops it.
func start(t *testing.T, s *eventlog.Sequencer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	}
}

func TestSequencer_numbers_when_it_is_woken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakePositions{}
		s, announced := newSequencer(t, d, eventlog.SequencerConfig{Batch: 10})
		defer start(t, s)()
		synctest.Wait()
		begun := time.Now()
		d.append(25)
		s.Wake()
		synctest.Wait()
		if waiting, _, head := d.state(); waiting != 0 || head != 25 || time.Since(begun) != 0 {
			t.Errorf("%d events wait and the head is %d after %v, want 0 and 25 at once", waiting, head, time.Since(begun))
		}
		if n := len(*announced); n != 4 || (*announced)[3] != 25 {
			t.Errorf("announced %v, want the head at the start and after each of three batches", *announced)
		}
	})
}

func TestSequencer_finds_events_without_being_woken_and_rests_else(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakePositions{}
		leader, _ := newSequencer(t, d, eventlog.SequencerConfig{})
		other, _ := newSequencer(t, d, eventlog.SequencerConfig{})
		defer start(t, leader)()
		synctest.Wait()
		defer start(t, other)()
		d.append(3)
		time.Sleep(time.Second + time.Millisecond)
		if waiting, _, _ := d.state(); waiting != 0 {
			t.Errorf("%d events wait after a second", waiting)
		}
		_, before, _ := d.state()
		time.Sleep(time.Minute)
		if _, after, _ := d.state(); after-before > 2*61 {
			t.Errorf("two sequencers made %d calls in a quiet minute, want one a second each", after-before)
		}
		if !leader.Leading() || other.Leading() {
			t.Errorf("leading: %v and %v, want the first to stay", leader.Leading(), other.Leading())
		}
	})
}

func TestSequencer_hands_over(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakePositions{}
		first, _ := newSequencer(t, d, eventlog.SequencerConfig{})
		second, _ := newSequencer(t, d, eventlog.SequencerConfig{})
		stop := start(t, first)
		synctest.Wait()
		defer start(t, second)()
		stop()
		d.append(1)
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if waiting, _, _ := d.state(); waiting != 0 || !second.Leading() {
			t.Errorf("a second after the first has stopped %d events wait, and the second leads: %v", waiting, second.Leading())
		}
	})
}

func TestSequencer_is_replaced_when_it_dies_and_gives_way_when_it_comes_back(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakePositions{}
		f := &eventlogtest.Freezer{PositionStore: d}
		first, _ := newSequencer(t, f, eventlog.SequencerConfig{})
		second, _ := newSequencer(t, d, eventlog.SequencerConfig{})
		defer start(t, first)()
		synctest.Wait()
		defer start(t, second)()
		f.Freeze()
		d.append(1)
		time.Sleep(5 * time.Second)
		if waiting, _, _ := d.state(); waiting != 0 || !second.Leading() {
			t.Errorf("five seconds after the first froze %d events wait, and the second leads: %v", waiting, second.Leading())
		}
		f.Thaw()
		d.append(1)
		first.Wake()
		time.Sleep(5 * time.Second)
		if waiting, _, head := d.state(); waiting != 0 || head != 2 || first.Leading() || !second.Leading() {
			t.Errorf("then %d events wait, head %d, leading: %v and %v, want 0, 2, false, true", waiting, head, first.Leading(), second.Leading())
		}
	})
}

func TestSequencer_goes_on_after_errors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakePositions{err: errors.New("gone")}
		s, _ := newSequencer(t, d, eventlog.SequencerConfig{})
		defer start(t, s)()
		time.Sleep(10 * time.Second)
		d.fail(nil)
		d.append(1)
		time.Sleep(2 * time.Second)
		d.fail(errors.New("gone again"))
		time.Sleep(10 * time.Second)
		d.fail(nil)
		d.append(1)
		time.Sleep(5 * time.Second)
		if waiting, calls, head := d.state(); waiting != 0 || head != 2 || calls > 60 {
			t.Errorf("%d events wait, head %d, %d calls, want 0, 2 and few", waiting, head, calls)
		}
	})
}

func TestSequencer_goes_on_at_once_after_one_error(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakePositions{}
		s, _ := newSequencer(t, d, eventlog.SequencerConfig{})
		defer start(t, s)()
		synctest.Wait()
		d.fail(errors.New("the connection was cut"))
		d.append(1)
		s.Wake()
		synctest.Wait()
		d.fail(nil)
		time.Sleep(100 * time.Millisecond)
		if waiting, _, _ := d.state(); waiting != 0 {
			t.Errorf("%d events wait a moment after an error, want none", waiting)
		}
	})
}

func TestNewSequencer_refuses_what_cannot_work(t *testing.T) {
	t.Parallel()
	for _, cfg := range []eventlog.SequencerConfig{{TTL: -1}, {Batch: -1}, {Idle: 5 * time.Second}} {
		if _, err := eventlog.NewSequencer(&fakePositions{}, nil, eventlogtest.DiscardLogger(), cfg); err == nil {
			t.Errorf("NewSequencer took %+v", cfg)
		}
	}
}
