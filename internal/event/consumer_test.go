package event_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// works is a node with products, whose stocks show what consumers did: each
// event product.updated adds one to the stock of its product.
type works struct {
	*node
	products []uid.Product
	wanted   map[uid.Product]int // updates so far
}

func openWorks(t testing.TB, url string, products int) *works {
	t.Helper()
	w := &works{node: startNode(t, url, (&notify.Memory{}).Join(), event.FeedConfig{}), wanted: map[uid.Product]int{}}
	for i := range products {
		p, s, err := order.NewProduct(order.ProductInput{
			SKU: fmt.Sprint("sku", i), Name: "x", Price: money.Money{Minor: 250, Currency: "EUR"}, Active: true,
		}, time.Now())
		if err == nil {
			p, err = w.db.Products().Create(t.Context(), p, s)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.products = append(w.products, p.ID)
	}
	return w
}

// update changes a product n times.
func (w *works) update(t testing.TB, id uid.Product, n int) {
	t.Helper()
	for range n {
		w.wanted[id]++
		_, err := w.db.Products().Update(t.Context(), id, func(p *order.Product) error {
			return p.Apply(order.ProductChange{Name: validate.Of(fmt.Sprint("name ", w.wanted[id]))}, time.Now())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// count is the handler: one more in stock.
func (w *works) count(ctx context.Context, e *event.Event) error {
	_, err := w.db.Products().UpdateStock(ctx, uid.Product(e.SubjectID), func(p *order.Product, s *order.Stock) error {
		return p.Adjust(s, 1, time.Now())
	})
	return err
}

func (w *works) desk(holder string) event.Desk {
	return event.Desk{Hub: w.feed.Hub, Offsets: w.db.Offsets(), Letters: w.db.Letters(), Holder: holder, Logger: quiet()}
}

var updates = event.ConsumerConfig{
	Types: []event.Type{event.ProductUpdated}, TTL: 300 * time.Millisecond, Retake: 20 * time.Millisecond,
	Attempts: 3, Backoff: time.Millisecond, MaxPause: 20 * time.Millisecond,
}

// consume runs a consumer until stop is called, which returns once it has ended.
func consume(t testing.TB, desk event.Desk, handle event.Handler, cfg event.ConsumerConfig) (stop func()) {
	t.Helper()
	c, err := event.NewConsumer("counter", handle, desk, cfg)
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

// await polls: a place in a table gives no sign when it moves.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 3000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it did not come about that %s", what)
}

// head returns the end of the log once everything in it has a position.
func (w *works) head(t testing.TB) (head event.Position) {
	t.Helper()
	await(t, "all events have positions", func() bool {
		s, err := w.db.Events().State(t.Context())
		head = s.Head
		return err == nil && s.Behind == 0
	})
	return head
}

// place returns how far the consumer is.
func (w *works) place(t testing.TB) event.Position {
	t.Helper()
	all, err := w.db.Offsets().List(t.Context())
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
func (w *works) awaitDone(t testing.TB) {
	t.Helper()
	head := w.head(t)
	await(t, "the consumer is done with all", func() bool { return w.place(t) >= head })
}

func (w *works) checkStocks(t testing.TB) {
	t.Helper()
	stocks, err := w.db.Products().Stocks(t.Context(), w.products)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range w.products {
		if got := stocks[id].Quantity; got != w.wanted[id] {
			t.Errorf("%d events of %s had %d effects", w.wanted[id], id, got)
		}
	}
}

// mortal is the part of a database connection that dies with its process.
type mortal struct {
	event.Offsets
	dead atomic.Bool
}

var errDead = errors.New("the process is dead")

func (m *mortal) Save(ctx context.Context, t event.Tenure, done event.Position, ttl time.Duration) (event.Tenure, error) {
	if m.dead.Load() {
		return t, errDead
	}
	return m.Offsets.Save(ctx, t, done, ttl)
}

func (m *mortal) Release(ctx context.Context, t event.Tenure) error {
	if m.dead.Load() {
		return errDead
	}
	return m.Offsets.Release(ctx, t)
}

func TestConsumer_that_dies_between_effect_and_place_has_each_effect_once(t *testing.T) {
	t.Parallel()
	lives := size(30, 1000)
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openWorks(t, url, 5)
		cfg := updates
		cfg.TTL = 60 * time.Millisecond
		for life := range lives {
			for range 3 {
				w.update(t, w.products[rand.IntN(len(w.products))], 1+rand.IntN(2))
			}
			w.head(t)
			m := &mortal{Offsets: w.db.Offsets()}
			desk := w.desk(fmt.Sprint("life ", life))
			desk.Offsets = m
			killed := make(chan struct{})
			end := sync.OnceFunc(func() { close(killed) })
			deadline := rand.Int64N(4)
			stop := consume(t, desk, func(ctx context.Context, e *event.Event) error {
				if m.dead.Load() {
					return errDead
				}
				err := w.count(ctx, e)
				if atomic.AddInt64(&deadline, -1) < 0 {
					m.dead.Store(true) // the effect is committed, the place is not saved
					end()
				}
				return err
			}, cfg)
			<-killed
			stop()
		}
		stop := consume(t, w.desk("last life"), w.count, cfg)
		w.awaitDone(t)
		stop()
		w.checkStocks(t)
	})
}

func TestConsumer_keeps_the_order_of_a_subject_and_works_on_others_beside(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openWorks(t, url, 6)
		for range 10 {
			for _, p := range w.products {
				w.update(t, p, 1)
			}
		}
		var mu sync.Mutex
		versions, busy, most := map[string][]int{}, 0, 0
		together := make(chan struct{})
		cfg := updates
		cfg.Parallel, cfg.Window = 4, 16
		cfg.TTL = 3 * time.Second // not to be lost on a machine that is busy: the next owner begins anew at the mark
		consume(t, w.desk("a"), func(ctx context.Context, e *event.Event) error {
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
			return w.count(ctx, e)
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

// letters returns the dead letters of the consumer, also those that were replayed.
func (w *works) letters(t testing.TB) []*event.DeadLetter {
	t.Helper()
	first := 100
	p, err := w.db.Letters().List(t.Context(), event.LetterFilter{Replayed: true}, page.Args{First: &first})
	if err != nil {
		t.Fatal(err)
	}
	return p.Items
}

func TestConsumer_parks_a_subject_behind_a_dead_letter_until_a_replay(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openWorks(t, url, 2)
		sick, well := w.products[0], w.products[1]
		w.update(t, sick, 3)
		w.update(t, well, 3)
		var broken atomic.Bool
		broken.Store(true)
		var mu sync.Mutex
		var order []int
		consume(t, w.desk("a"), func(ctx context.Context, e *event.Event) error {
			if e.SubjectID == string(sick) && broken.Load() {
				return fault.New(fault.StockInvalid, "It does not work.").Because(errors.New("secret"))
			}
			err := w.count(ctx, e)
			if mu.Lock(); err == nil && e.SubjectID == string(sick) {
				order = append(order, e.SubjectVersion)
			}
			mu.Unlock()
			return err
		}, updates)
		w.awaitDone(t)
		w.update(t, sick, 1)
		w.awaitDone(t)
		letters := w.letters(t)
		if len(letters) != 4 {
			t.Fatalf("there are %d dead letters, want 4", len(letters))
		}
		if f := letters[0].Failure; f.Attempts != 3 || f.Code != fault.StockInvalid || f.Message != "It does not work." || f.Detail == f.Message {
			t.Errorf("the first letter says %+v", f)
		}
		for i, l := range letters {
			if l.Consumer != "counter" || l.Event.SubjectVersion != i+2 || (l.Failure.Attempts > 0) != (i == 0) || l.ReplayedAt != nil {
				t.Errorf("letter %d is %+v of %+v", i, l, l.Event)
			}
		}
		replay := func() {
			t.Helper()
			if n, err := w.db.Letters().Request(t.Context(), event.Replay{IDs: []uid.DeadLetter{letters[2].ID}}); err != nil || n != 4 {
				t.Fatalf("Request = %d, %v, want all 4 of the subject", n, err)
			}
		}
		replay() // is in vain
		await(t, "the replay is given up", func() bool { return w.letters(t)[0].Failure.Attempts == 6 })
		if l := w.letters(t); l[0].RequestedAt != nil || l[3].RequestedAt != nil || l[1].Failure.Attempts != 0 {
			t.Errorf("after a replay in vain there are %+v", l)
		}
		broken.Store(false)
		replay()
		w.update(t, sick, 1)
		await(t, "all is replayed", func() bool {
			return !slices.ContainsFunc(w.letters(t), func(l *event.DeadLetter) bool { return l.ReplayedAt == nil })
		})
		w.update(t, sick, 1)
		w.awaitDone(t)
		w.checkStocks(t)
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(order, []int{2, 3, 4, 5, 6, 7}) {
			t.Errorf("the subject's events were worked on as versions %v, want 2 to 7 in order", order)
		}
	})
}

func TestConsumer_waits_for_as_long_as_the_database_is_away(t *testing.T) {
	t.Parallel()
	w := openWorks(t, testenv.SQLite(t), 1)
	w.update(t, w.products[0], 2)
	var tries atomic.Int64
	consume(t, w.desk("a"), func(ctx context.Context, e *event.Event) error {
		if tries.Add(1) < 20 { // far more than an event has attempts
			return fault.New(fault.Unavailable, "Away.")
		}
		return w.count(ctx, e)
	}, updates)
	w.awaitDone(t)
	w.checkStocks(t)
	if l := w.letters(t); len(l) != 0 {
		t.Errorf("there are %d dead letters, want none", len(l))
	}
}

func TestConsumer_survives_a_handler_that_panics(t *testing.T) {
	t.Parallel()
	w := openWorks(t, testenv.SQLite(t), 1)
	w.update(t, w.products[0], 1)
	var once sync.Once
	consume(t, w.desk("a"), func(ctx context.Context, e *event.Event) error {
		once.Do(func() { panic("broken") })
		return w.count(ctx, e)
	}, updates)
	w.awaitDone(t)
	w.checkStocks(t)
}

func TestConsumer_that_was_replaced_while_it_froze_changes_nothing(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openWorks(t, url, 1)
		w.update(t, w.products[0], 3)
		w.head(t)
		old, ok, err := w.db.Offsets().Take(t.Context(), "counter", "frozen", 0, time.Nanosecond)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		found, err := w.db.Events().Read(t.Context(), event.Filter{Types: updates.Types}, event.Span{Limit: 10})
		if err != nil || len(found) != 3 {
			t.Fatalf("Read = %d events, %v", len(found), err)
		}
		work := func(e *event.Event) error {
			return w.count(event.WithDelivery(t.Context(), event.Delivery{Tenure: old, Event: e.ID, Position: e.Cursor.Position}), e)
		}
		if err := work(found[0]); err != nil { // nobody has taken over: the lease holds, though it expired
			t.Fatal(err)
		}
		stop := consume(t, w.desk("other"), w.count, updates)
		w.awaitDone(t)
		stop()
		for purge := range 2 { // with the claims of the other, and without
			for _, e := range found {
				if err := work(e); !errors.Is(err, event.ErrHandled) && !errors.Is(err, event.ErrLeaseLost) {
					t.Errorf("working on %s after %d purges = %v, want a refusal", e.ID, purge, err)
				}
				if err := w.db.Letters().Bury(t.Context(), old, e, event.Failure{Attempts: 1}); !errors.Is(err, event.ErrHandled) && !errors.Is(err, event.ErrLeaseLost) {
					t.Errorf("burying %s after %d purges = %v, want a refusal", e.ID, purge, err)
				}
			}
			if n, err := w.db.PurgeExpired(t.Context()); err != nil || n != 3-3*purge {
				t.Errorf("PurgeExpired = %d, %v, want %d claims", n, err, 3-3*purge)
			}
		}
		w.checkStocks(t)
		if l := w.letters(t); len(l) != 0 {
			t.Errorf("there are %d dead letters, want none", len(l))
		}
	})
}

func TestConsumer_keeps_its_claims_until_its_place_has_passed_them(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		w := openWorks(t, url, 2)
		w.update(t, w.products[0], 1)
		w.update(t, w.products[1], 3)
		release := make(chan struct{})
		var done atomic.Int64
		consume(t, w.desk("a"), func(ctx context.Context, e *event.Event) error {
			if e.SubjectID == string(w.products[0]) {
				<-release // holds the mark
			}
			err := w.count(ctx, e)
			done.Add(1)
			return err
		}, updates)
		await(t, "the other subject is done", func() bool { return done.Load() == 3 })
		if n, err := w.db.PurgeExpired(t.Context()); n != 0 || err != nil {
			t.Errorf("PurgeExpired above the mark = %d, %v, want none", n, err)
		}
		close(release)
		w.awaitDone(t)
		if n, err := w.db.PurgeExpired(t.Context()); n != 4 || err != nil {
			t.Errorf("PurgeExpired below the mark = %d, %v, want 4", n, err)
		}
		w.checkStocks(t)
	})
}
