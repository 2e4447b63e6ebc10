package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// fakeLeases grants any owner the lease, for as long as it renews it in time.
type fakeLeases struct {
	lease.Store
	until time.Time
}

func (o *fakeLeases) Acquire(_ context.Context, name, owner string, p event.Position, ttl time.Duration) (lease.Lease, bool, error) {
	o.until = time.Now().Add(ttl)
	return lease.Lease{Name: name, Owner: owner, Epoch: 1, Position: p}, true, nil
}

func (o *fakeLeases) Renew(_ context.Context, t lease.Lease, _ event.Position, ttl time.Duration) (lease.Lease, error) {
	if !time.Now().Before(o.until) {
		return t, lease.ErrLost
	}
	o.until = time.Now().Add(ttl)
	return t, nil
}

func (o *fakeLeases) Release(context.Context, lease.Lease) error { return nil }

// fakeReconcileStore is a database in which each judgement takes a while.
type fakeReconcileStore struct {
	leases    *fakeLeases
	duration  time.Duration
	mu        sync.Mutex // held for due, while a loop runs
	due       []uid.Service
	absent    uid.Service // due, but without a row
	extended  int
	evaluated map[uid.Service]int
}

func (b *fakeReconcileStore) ExtendAllLeases(context.Context, lease.Lease) error {
	b.extended++
	return nil
}

// addDue makes another service due.
func (b *fakeReconcileStore) addDue(id uid.Service) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = append(b.due, id)
}

func (b *fakeReconcileStore) DueServices(context.Context, time.Duration, int, int) (ids []uid.Service, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.due {
		if b.evaluated[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (b *fakeReconcileStore) RecordChecks(context.Context, lease.Lease, map[InstanceStart]CheckReport) error {
	return nil
}

func (b *fakeReconcileStore) EvaluateService(ctx context.Context, _ lease.Lease, id uid.Service, _ time.Duration, _ int,
	_ func(*Service, []*Instance, map[uid.Instance]LeaseState) error,
) (*Service, []*Instance, error) {
	if id == b.absent {
		return nil, nil, ServiceNotFound()
	}
	select {
	case <-time.After(b.duration):
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if !time.Now().Before(b.leases.until) {
		return nil, nil, lease.ErrLost
	}
	b.evaluated[id]++
	return &Service{ID: id, Name: string(id)}, nil, nil
}

func TestReconciler_evaluates_many_in_several_rounds_under_one_lease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeReconcileStore{leases: &fakeLeases{}, duration: 10 * time.Millisecond, evaluated: map[uid.Service]int{}}
		for n := range 1000 { // more than two rounds can evaluate
			b.due = append(b.due, uid.Service(fmt.Sprint("svc_", n)))
		}
		k, err := NewReconciler(b, b.leases, func() event.Position { return 1 }, newTestDirectory().Directory, nil, time.Now, slog.New(slog.DiscardHandler), ReconcilerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := k.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(b.evaluated) != len(b.due) || b.extended != 1 {
			t.Errorf("in a minute %d of %d services were evaluated, and leases were extended %d times; want all, and once at the start", len(b.evaluated), len(b.due), b.extended)
		}
	})
}

// TestKeeper_goes_on_after_a_service_that_does_not_exist has checks speak of a service whose row is gone:
// it stays in the directory until that is loaded again.
func TestKeeper_goes_on_after_a_service_that_does_not_exist(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeReconcileStore{leases: &fakeLeases{}, evaluated: map[uid.Service]int{}, due: []uid.Service{"svc_absent", "svc_there"}, absent: "svc_absent"}
		k, err := NewReconciler(b, b.leases, func() event.Position { return 1 }, newTestDirectory().Directory, nil, time.Now, slog.New(slog.DiscardHandler), ReconcilerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := k.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if b.evaluated["svc_there"] != 1 || b.extended != 1 {
			t.Errorf("behind a service that does not exist another was evaluated %d times under %d leases, want once under one", b.evaluated["svc_there"], b.extended)
		}
	})
}

func TestKeeper_takes_checks_and_leases_in_turn(t *testing.T) {
	t.Parallel()
	got := interleave([]uid.Service{"a", "b", "c", "d"}, map[uid.Service]map[uid.Instance]checkResult{"c": nil})
	if fmt.Sprint(got) != "[a c b d]" {
		t.Errorf("interleave = %v, want the one with check results after the first due one", got)
	}
}

func TestReconciler_gives_the_loop_up_while_the_clock_is_wrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := &fakeReconcileStore{leases: &fakeLeases{}, evaluated: map[uid.Service]int{}, due: []uid.Service{"svc_first"}}
		var skewed atomic.Bool
		r, err := NewReconciler(b, b.leases, func() event.Position { return 1 }, newTestDirectory().Directory, nil, time.Now, slog.New(slog.DiscardHandler),
			ReconcilerConfig{CheckSkew: func() error {
				if skewed.Load() {
					return errors.New("40 days ahead")
				}
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = r.Run(t.Context()) }()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if r.held == nil || b.evaluated["svc_first"] != 1 {
			t.Fatalf("with a right clock the loop is held: %v, evaluated %v", r.held != nil, b.evaluated)
		}
		skewed.Store(true)
		b.addDue("svc_second")
		time.Sleep(time.Hour)
		synctest.Wait()
		if r.held != nil || b.evaluated["svc_second"] != 0 {
			t.Errorf("with a wrong clock the loop is held: %v, evaluated %v", r.held != nil, b.evaluated)
		}
		skewed.Store(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if r.held == nil || b.evaluated["svc_second"] != 1 {
			t.Errorf("with a right clock again the loop is held: %v, evaluated %v", r.held != nil, b.evaluated)
		}
	})
}
