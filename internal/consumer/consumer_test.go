package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// shop is a Shop with what consumers need.
type shop struct{ *eventlogtest.Shop }

func openShop(t testing.TB, url string, products int) *shop {
	t.Helper()
	return &shop{eventlogtest.OpenShop(t, url, products)}
}

func (w *shop) deps(owner string) consumer.Deps {
	return consumer.Deps{Hub: w.Pipeline.Hub, Leases: w.DB.Leases(), DeadLetters: w.DB.DeadLetters(), Owner: owner, Logger: eventlogtest.DiscardLogger()}
}

var updatesConfig = consumer.Config{
	Types: []event.Type{order.EventProductUpdated}, TTL: 300 * time.Millisecond, AcquireInterval: 20 * time.Millisecond,
	Attempts: 3, Backoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
}

// consume runs a consumer until stop is called, which returns once it has ended.
func consume(t testing.TB, deps consumer.Deps, handle consumer.Handler, cfg consumer.Config) (stop func()) {
	t.Helper()
	c, err := consumer.New("counter", handle, deps, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// offset returns how far the consumer is.
func (w *shop) offset(t testing.TB) event.Position {
	t.Helper()
	all, err := w.DB.Leases().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.Name == "counter" {
			return o.Position
		}
	}
	return 0
}

// awaitDone waits until the consumer is past all that there is now.
func (w *shop) awaitDone(t testing.TB) {
	t.Helper()
	head := w.Head(t)
	testenv.Eventually(t, "the consumer is done with all", func() bool { return w.offset(t) >= head })
}

func (w *shop) checkStocks(t testing.TB) {
	t.Helper()
	stocks, err := w.DB.Products().Stocks(t.Context(), w.Products)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range w.Products {
		if got := stocks[id].Quantity; got != w.Wanted[id] {
			t.Errorf("%d events of %s had %d effects", w.Wanted[id], id, got)
		}
	}
}

// dyingLeases is the part of a database connection that dies with its process.
type dyingLeases struct {
	lease.Store
	dead atomic.Bool
}

var errDead = errors.New("the process is dead")

func (m *dyingLeases) Renew(ctx context.Context, t lease.Lease, done event.Position, ttl time.Duration) (lease.Lease, error) {
	if m.dead.Load() {
		return t, errDead
	}
	return m.Store.Renew(ctx, t, done, ttl)
}

func (m *dyingLeases) Release(ctx context.Context, t lease.Lease) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Store.Release(ctx, t)
}

func TestConsumer_that_dies_between_effect_and_saved_offset_has_each_effect_once(t *testing.T) {
	t.Parallel()
	lives := eventlogtest.Size(30, 1000)
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openShop(t, url, 5)
		cfg := updatesConfig
		cfg.TTL = 60 * time.Millisecond
		for life := range lives {
			for range 3 {
				w.Update(t, w.Products[rand.IntN(len(w.Products))], 1+rand.IntN(2))
			}
			w.Head(t)
			m := &dyingLeases{Store: w.DB.Leases()}
			deps := w.deps(fmt.Sprint("life ", life))
			deps.Leases = m
			killed := make(chan struct{})
			end := sync.OnceFunc(func() { close(killed) })
			deadline := rand.Int64N(3) // each life has three events at least
			stop := consume(t, deps, func(ctx context.Context, d claim.Delivery, e *event.Event) error {
				if m.dead.Load() {
					return errDead
				}
				err := w.Count(ctx, d, e)
				if atomic.AddInt64(&deadline, -1) < 0 {
					m.dead.Store(true) // the effect is committed, the offset is not saved
					end()
				}
				return err
			}, cfg)
			<-killed
			stop()
		}
		stop := consume(t, w.deps("last life"), w.Count, cfg)
		w.awaitDone(t)
		stop()
		w.checkStocks(t)
	})
}

func TestConsumer_keeps_order_per_subject_and_handles_subjects_in_parallel(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openShop(t, url, 6)
		for range 10 {
			for _, p := range w.Products {
				w.Update(t, p, 1)
			}
		}
		var mu sync.Mutex
		versions, busy, most := map[string][]int{}, 0, 0
		together := make(chan struct{})
		cfg := updatesConfig
		cfg.Parallel, cfg.Window = 4, 16
		cfg.TTL = 3 * time.Second // not to be lost on a machine that is busy: the next owner reads again from the low watermark
		consume(t, w.deps("a"), func(ctx context.Context, d claim.Delivery, e *event.Event) error {
			mu.Lock()
			versions[e.SubjectID] = append(versions[e.SubjectID], e.SubjectVersion)
			busy++
			if most = max(most, busy); most == 4 && busy == 4 {
				select {
				case <-together:
				default:
					close(together)
				}
			}
			mu.Unlock()
			select {
			case <-together: // four at a time, or the test hangs here
			case <-ctx.Done():
			}
			defer func() {
				mu.Lock()
				busy--
				mu.Unlock()
			}()
			return w.Count(ctx, d, e)
		}, cfg)
		w.awaitDone(t)
		w.checkStocks(t)
		mu.Lock()
		defer mu.Unlock()
		if most != 4 {
			t.Errorf("at most %d handlers ran at a time, want 4", most)
		}
		for id, got := range versions {
			if !slices.IsSorted(got) || len(got) != 10 {
				t.Errorf("the events of %s came as versions %v", id, got)
			}
		}
	})
}

// deadLetters returns the dead letters of the consumer, also those that were replayed.
func (w *shop) deadLetters(t testing.TB) []*consumer.DeadLetter {
	t.Helper()
	first := 100
	p, err := w.DB.DeadLetters().List(t.Context(), consumer.DeadLetterFilter{Replayed: true}, page.Args{First: &first})
	if err != nil {
		t.Fatal(err)
	}
	return p.Items
}

func TestConsumer_parks_a_subject_behind_a_dead_letter_until_a_replay(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openShop(t, url, 2)
		sick, well := w.Products[0], w.Products[1]
		w.Update(t, sick, 3)
		w.Update(t, well, 3)
		var broken atomic.Bool
		broken.Store(true)
		var mu sync.Mutex
		var versions []int
		consume(t, w.deps("a"), func(ctx context.Context, d claim.Delivery, e *event.Event) error {
			if e.SubjectID == string(sick) && broken.Load() {
				return fault.New(order.CodeStockInvalid, "It does not work.").Because(errors.New("secret"))
			}
			err := w.Count(ctx, d, e)
			if mu.Lock(); err == nil && e.SubjectID == string(sick) {
				versions = append(versions, e.SubjectVersion)
			}
			mu.Unlock()
			return err
		}, updatesConfig)
		w.awaitDone(t)
		w.Update(t, sick, 1)
		w.awaitDone(t)
		letters := w.deadLetters(t)
		if len(letters) != 4 {
			t.Fatalf("there are %d dead letters, want 4", len(letters))
		}
		if f := letters[0].Failure; f.Attempts != 3 || f.Code != order.CodeStockInvalid || f.Message != "It does not work." || f.Detail == f.Message {
			t.Errorf("the first dead letter says %+v", f)
		}
		for i, l := range letters {
			if l.Consumer != "counter" || l.Event.SubjectVersion != i+2 || (l.Failure.Attempts > 0) != (i == 0) || l.ReplayedAt != nil {
				t.Errorf("dead letter %d is %+v of %+v", i, l, l.Event)
			}
		}
		replay := func() {
			t.Helper()
			if n, err := w.DB.DeadLetters().RequestReplay(t.Context(), claim.None, consumer.ReplayRequest{IDs: []uid.DeadLetter{letters[2].ID}}); err != nil || n != 4 {
				t.Fatalf("Request = %d, %v, want all 4 of the subject", n, err)
			}
		}
		replay() // is in vain
		testenv.Eventually(t, "the replay is given up", func() bool { return w.deadLetters(t)[0].Failure.Attempts == 6 })
		if l := w.deadLetters(t); l[0].RequestedAt != nil || l[3].RequestedAt != nil || l[1].Failure.Attempts != 0 {
			t.Errorf("after a replay in vain there are %+v", l)
		}
		broken.Store(false)
		replay()
		w.Update(t, sick, 1)
		testenv.Eventually(t, "all is replayed", func() bool {
			return !slices.ContainsFunc(w.deadLetters(t), func(l *consumer.DeadLetter) bool { return l.ReplayedAt == nil })
		})
		w.Update(t, sick, 1)
		w.awaitDone(t)
		w.checkStocks(t)
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(versions, []int{2, 3, 4, 5, 6, 7}) {
			t.Errorf("the subject's events were worked on as versions %v, want 2 to 7 in versions", versions)
		}
	})
}

func TestConsumer_retries_without_limit_while_the_database_is_unavailable(t *testing.T) {
	t.Parallel()
	w := openShop(t, testenv.SQLite(t), 1)
	w.Update(t, w.Products[0], 2)
	var tries atomic.Int64
	consume(t, w.deps("a"), func(ctx context.Context, d claim.Delivery, e *event.Event) error {
		if tries.Add(1) < 20 { // far more than an event has attempts
			return fault.New(fault.Unavailable, "Away.")
		}
		return w.Count(ctx, d, e)
	}, updatesConfig)
	w.awaitDone(t)
	w.checkStocks(t)
	if l := w.deadLetters(t); len(l) != 0 {
		t.Errorf("there are %d dead letters, want none", len(l))
	}
}

func TestConsumer_survives_a_handler_that_panics(t *testing.T) {
	t.Parallel()
	w := openShop(t, testenv.SQLite(t), 1)
	w.Update(t, w.Products[0], 1)
	var once sync.Once
	consume(t, w.deps("a"), func(ctx context.Context, d claim.Delivery, e *event.Event) error {
		once.Do(func() { panic("broken") })
		return w.Count(ctx, d, e)
	}, updatesConfig)
	w.awaitDone(t)
	w.checkStocks(t)
}

func TestConsumer_with_a_stale_epoch_changes_nothing(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openShop(t, url, 1)
		w.Update(t, w.Products[0], 3)
		w.Head(t)
		old, ok, err := w.DB.Leases().Acquire(t.Context(), "counter", "frozen", 0, time.Nanosecond)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		found, err := w.DB.Events().Read(t.Context(), event.Filter{Types: updatesConfig.Types}, eventlog.Span{Limit: 10})
		if err != nil || len(found) != 3 {
			t.Fatalf("Read = %d events, %v", len(found), err)
		}
		work := func(e *event.Event) error {
			return w.Count(t.Context(), claim.Delivery{Lease: old, Event: e.ID, Position: e.Cursor.Position}, e)
		}
		if err := work(found[0]); err != nil { // the lease is expired, but no other owner has acquired it
			t.Fatal(err)
		}
		stop := consume(t, w.deps("other"), w.Count, updatesConfig)
		w.awaitDone(t)
		stop()
		for purge := range 2 { // with the claims of the other, and without
			for _, e := range found {
				if err := work(e); !errors.Is(err, claim.ErrAlreadyHandled) && !errors.Is(err, lease.ErrLost) {
					t.Errorf("working on %s after %d purges = %v, want a refusal", e.ID, purge, err)
				}
				if err := w.DB.DeadLetters().Park(t.Context(), old, e, consumer.Failure{Attempts: 1}); !errors.Is(err, claim.ErrAlreadyHandled) && !errors.Is(err, lease.ErrLost) {
					t.Errorf("parking %s after %d purges = %v, want a refusal", e.ID, purge, err)
				}
			}
			if n, err := w.DB.PurgeExpired(t.Context()); err != nil || n != 3-3*purge {
				t.Errorf("PurgeExpired = %d, %v, want %d claims", n, err, 3-3*purge)
			}
		}
		w.checkStocks(t)
		if l := w.deadLetters(t); len(l) != 0 {
			t.Errorf("there are %d dead letters, want none", len(l))
		}
	})
}

func TestConsumer_keeps_claims_until_the_low_watermark_passes_them(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openShop(t, url, 2)
		w.Update(t, w.Products[0], 1)
		w.Update(t, w.Products[1], 3)
		release := make(chan struct{})
		var done atomic.Int64
		consume(t, w.deps("a"), func(ctx context.Context, d claim.Delivery, e *event.Event) error {
			if e.SubjectID == string(w.Products[0]) {
				<-release // holds the low watermark
			}
			err := w.Count(ctx, d, e)
			done.Add(1)
			return err
		}, updatesConfig)
		testenv.Eventually(t, "the other subject is done", func() bool { return done.Load() == 3 })
		if n, err := w.DB.PurgeExpired(t.Context()); n != 0 || err != nil {
			t.Errorf("PurgeExpired above the low watermark = %d, %v, want none", n, err)
		}
		close(release)
		w.awaitDone(t)
		if n, err := w.DB.PurgeExpired(t.Context()); n != 4 || err != nil {
			t.Errorf("PurgeExpired below the low watermark = %d, %v, want 4", n, err)
		}
		w.checkStocks(t)
	})
}

func TestConsumer_skips_events_that_retention_removed(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openShop(t, url, 1)
		stop := consume(t, w.deps("a"), w.Count, updatesConfig)
		w.Update(t, w.Products[0], 2)
		w.awaitDone(t)
		stop()
		w.Update(t, w.Products[0], 10)
		w.Head(t)
		if err := w.DB.Events().Remove(t.Context(), 0, 8); err != nil {
			t.Fatal(err)
		}
		if s, err := w.DB.Events().State(t.Context()); err != nil || s.Oldest != 9 {
			t.Fatalf("State = %+v, %v", s, err)
		}
		out := &eventlogtest.LogBuffer{}
		deps := w.deps("b")
		deps.Logger = slog.New(slog.NewTextHandler(out, nil))
		consume(t, deps, w.Count, updatesConfig)
		w.awaitDone(t)
		if !strings.Contains(out.String(), "upto=8") {
			t.Errorf("the consumer said %s, which does not name the lost events", out)
		}
		stocks, err := w.DB.Products().Stocks(t.Context(), w.Products)
		if got := stocks[w.Products[0]].Quantity; err != nil || got != 9 {
			t.Errorf("the events had %d effects (%v), want 2 and 7 of the 10 later ones", got, err)
		}
	})
}

func TestConsumer_resumes_after_its_connections_were_lost_silently(t *testing.T) {
	t.Parallel()
	direct, around, proxy := eventlogtest.PostgresBehindProxy(t)
	w := openShop(t, direct, 1)
	far := testenv.Open(t, store.Config{URL: around, MaxConns: 8})
	deps := w.deps("far")
	deps.Leases, deps.DeadLetters = far.Leases(), far.DeadLetters()
	consume(t, deps, w.Count, updatesConfig)
	for range 3 { // it may be in the middle of anything
		w.Update(t, w.Products[0], 1)
		w.awaitDone(t)
		proxy.Lose()
	}
	w.Update(t, w.Products[0], 1)
	w.awaitDone(t)
}

func TestConsumer_does_not_count_attempts_while_the_database_hangs(t *testing.T) {
	t.Parallel()
	direct, around, proxy := eventlogtest.PostgresBehindProxy(t)
	w := openShop(t, direct, 1)
	far := testenv.Open(t, store.Config{URL: around, MaxConns: 8})
	deps := w.deps("far")
	deps.Leases, deps.DeadLetters = far.Leases(), far.DeadLetters()
	cfg := updatesConfig
	cfg.AttemptTimeout = 2 * cfg.TTL
	there, tries := &eventlogtest.Shop{Node: &eventlogtest.Node{DB: far}}, atomic.Int32{}
	consume(t, deps, func(ctx context.Context, d claim.Delivery, e *event.Event) error {
		if int(tries.Add(1)) <= cfg.Attempts { // all its attempts
			proxy.Stall()
		} else {
			proxy.Heal()
		}
		return there.Count(ctx, d, e)
	}, cfg)
	w.Update(t, w.Products[0], 1)
	w.awaitDone(t)
	if got := w.deadLetters(t); len(got) > 0 {
		t.Errorf("there are dead letters, the first because of %+v; want none", got[0].Failure)
	}
}
