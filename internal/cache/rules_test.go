package cache_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// deaf is a node on the same database that does not hear of the others' writes.
func deaf(t *testing.T, url, redis string) *node {
	t.Helper()
	return start(t, options{url: url, redis: redis, hub: event.HubConfig{Poll: time.Hour}})
}

// givenWarmRedis leaves a product in the database and in Redis, and no node.
func givenWarmRedis(t *testing.T, url, redis string) {
	t.Run("before", func(t *testing.T) {
		n := start(t, options{url: url, redis: redis})
		p := n.product(t, "cup", 1)
		n.caughtUp(t, n)
		n.warm(t, p.ID)
	})
}

func TestRead_WarmDoesNoSQLAndNoRoundTrip(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	p := n.product(t, "cup", 1)
	n.caughtUp(t, n)
	if got := n.statements(func() { n.version(t, p.ID) }); got != 1 {
		t.Errorf("a cold read took %d statements, want 1", got)
	}
	await(t, "the fill", func() bool { return n.fills() == 1 })
	trips := &roundTrips{}
	n.cache.Client().AddHook(trips)
	if got := n.statements(func() { n.version(t, p.ID) }); got != 0 || trips.n.Load() != 0 {
		t.Errorf("a warm read took %d statements and %d round trips, want none", got, trips.n.Load())
	}
}

func TestRead_WarmInAColdProcessDoesOneRoundTrip(t *testing.T) {
	t.Parallel()
	url, redis := testenv.SQLite(t), testenv.Redis(t)
	first := start(t, options{url: url, redis: redis})
	var ids []uid.Product
	for i := range 100 {
		ids = append(ids, first.product(t, fmt.Sprint("sku", i), 1).ID)
	}
	first.caughtUp(t, first)
	want, err := first.products.ByIDs(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the fills", func() bool { return first.fills() == 100 })

	cold, trips := start(t, options{url: url, redis: redis}), &roundTrips{}
	cold.cache.Client().AddHook(trips)
	var got map[uid.Product]*order.Product
	if n := cold.statements(func() { got, err = cold.products.ByIDs(t.Context(), ids) }); n != 0 || err != nil || trips.n.Load() != 1 {
		t.Errorf("a cold process took %d statements, %d round trips and got %v; want one round trip", n, trips.n.Load(), err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(order.Product{})); diff != "" {
		t.Errorf("what comes from Redis differs from what was read (-read +Redis):\n%s", diff)
	}
}

func TestRead_FollowsOwnWritesAtOnce(t *testing.T) {
	t.Parallel()
	n := start(t, options{})
	p := n.product(t, "cup", 1)
	for want := 2; want < 20; want++ {
		n.version(t, p.ID)
		n.rename(t, p.ID, strings.Repeat("x", want))
		if got := n.version(t, p.ID); got != want {
			t.Fatalf("after its write a node reads version %d, want %d", got, want)
		}
	}
}

func TestRead_FollowsOthersWritesOnceASubscriberHearsOfThem(t *testing.T) {
	t.Parallel()
	url, redis, both := testenv.SQLite(t), testenv.Redis(t), &notify.Memory{}
	a, b := start(t, options{url: url, redis: redis, bus: both}), start(t, options{url: url, redis: redis, bus: both})
	p := a.product(t, "cup", 1)
	b.caughtUp(t, a)
	sub, err := b.hub.Subscribe(t.Context(), nil, event.Filter{SubjectID: string(p.ID)})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	for i := range 20 {
		b.version(t, p.ID)
		want := a.rename(t, p.ID, fmt.Sprint("name ", i))
		if _, err := sub.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.version(t, p.ID); got != want {
			t.Fatalf("a subscriber that has the event reads version %d, want %d", got, want)
		}
	}
}

// What a slow read has seen before a change must not be kept after it, whatever
// became of what knew of the change.
func TestFill_OfAReadThatBeganBeforeAChangeIsRefused(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*node, uid.Product){
		"while the newer value is there":     func(*node, uid.Product) {},
		"once the newer value was evicted":   func(n *node, _ uid.Product) { n.cached().Evict() },
		"once the newer value expired":       func(n *node, id uid.Product) { n.cached().Expire(id) },
		"once the newer value was forgotten": func(n *node, _ uid.Product) { n.cache.Forget() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, options{})
			p := n.product(t, "cup", 1)
			finish := n.slowRead(t, p.ID)
			n.rename(t, p.ID, "mug")
			if got := n.version(t, p.ID); got != 2 {
				t.Fatalf("a read after the change shows version %d, want 2: it joined the slow one", got)
			}
			lose(n, p.ID)
			n.cache.DropFloors() // a read may last longer than they do
			if got := finish(); got != 1 {
				t.Fatalf("the slow read shows version %d, want 1", got)
			}
			if got := n.version(t, p.ID); got != 2 {
				t.Errorf("after the slow read the node shows version %d, want 2", got)
			}
		})
	}
}

// The same for what another node's event tells.
func TestFill_OfAReadThatBeganBeforeAnEventIsRefused(t *testing.T) {
	t.Parallel()
	url, both := testenv.SQLite(t), &notify.Memory{}
	a, b := start(t, options{url: url, bus: both}), start(t, options{url: url, bus: both})
	p := a.product(t, "cup", 1)
	b.caughtUp(t, a)
	finish := b.slowRead(t, p.ID)
	a.rename(t, p.ID, "mug")
	b.caughtUp(t, a)
	b.cache.DropFloors()
	finish()
	if got := b.version(t, p.ID); got != 2 {
		t.Errorf("after the slow read the node shows version %d, want 2", got)
	}
}

func TestFill_OfRedisIsRefusedOnceItsLeaseIsVoid(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, n *node, id uid.Product) error{
		"while the tombstone stands": func(*testing.T, *node, uid.Product) error { return nil },
		"once the tombstone was evicted or expired": func(t *testing.T, n *node, id uid.Product) error {
			return n.cache.Client().Del(t.Context(), n.cache.Key("product", string(id))).Err()
		},
		"once Redis was flushed": func(t *testing.T, n *node, _ uid.Product) error { return n.cache.Client().FlushDB(t.Context()).Err() },
		"once the generation was lost": func(t *testing.T, n *node, _ uid.Product) error {
			return n.cache.Client().Del(t.Context(), n.cache.Meta()).Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, redis, both := testenv.SQLite(t), testenv.Redis(t), &notify.Memory{}
			a, b := start(t, options{url: url, redis: redis, bus: both}), start(t, options{url: url, redis: redis, bus: both})
			p := a.product(t, "cup", 1)
			b.caughtUp(t, a)
			finish := b.slowRead(t, p.ID)
			a.rename(t, p.ID, "mug")
			b.caughtUp(t, a)
			if err := lose(t, a, p.ID); err != nil {
				t.Fatal(err)
			}
			finish()
			await(t, "the fill to be refused", func() bool { return b.fills() == 1 })
			if got := b.cache.Stats().Entities["product"]; got.RedisFills != 0 {
				t.Errorf("Redis took %d fills of an old value", got.RedisFills)
			}
			cold := start(t, options{url: url, redis: redis})
			if got := cold.version(t, p.ID); got != 2 {
				t.Errorf("a cold process reads version %d, want 2", got)
			}
		})
	}
}

func TestRedis_WithOlderDataIsNotBelieved(t *testing.T) {
	t.Parallel()
	for name, settle := range map[string]bool{"while the version is remembered": false, "once it is not": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, options{redis: testenv.Redis(t), cfg: cacheConfig{SettleTime: time.Hour}})
			p := n.product(t, "cup", 1)
			n.caughtUp(t, n)
			n.warm(t, p.ID)
			restart := n.dump(t)
			n.rename(t, p.ID, "mug")
			n.caughtUp(t, n)
			n.warm(t, p.ID)
			if settle {
				await(t, "the version to be forgotten", func() bool {
					n.cache.Settle()
					n.cached().Evict()
					return n.cached().Floor(p.ID) == 0
				})
			}
			restart() // it says version 1 again, and that it has heard of nothing since
			n.cached().Evict()
			if got := n.version(t, p.ID); got != 2 {
				t.Errorf("the node reads version %d, want 2: it has read that", got)
			}
			if n.cache.Stats().Entities["product"].RedisStale == 0 {
				t.Error("no value of Redis was found stale")
			}
			n.caughtUpAfter(t, func() { n.rename(t, p.ID, "jug") })
			n.cached().Evict()
			if got := n.version(t, p.ID); got != 3 {
				t.Errorf("the node reads version %d, want 3", got)
			}
		})
	}
}

func TestRedis_HearsOfWhatItMissedWhileNobodyRan(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"from the log": 1000, "by a new generation if that is too much": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, redis := testenv.SQLite(t), testenv.Redis(t)
			givenWarmRedis(t, url, redis)
			alone := start(t, options{url: url}) // writes without Redis
			p, err := alone.products.BySKU(t.Context(), "cup")
			if err != nil {
				t.Fatal(err)
			}
			alone.rename(t, p.ID, "mug")
			alone.rename(t, p.ID, "jug")
			cold := start(t, options{url: url, redis: redis, cfg: cacheConfig{CatchUpLimit: limit}})
			if got := cold.version(t, p.ID); got != 3 {
				t.Errorf("the node reads version %d, want 3", got)
			}
			if s := cold.cache.Stats().Redis; (s.CaughtUp == 2) != (limit == 1000) || (s.Renewed == 1) != (limit == 1) {
				t.Errorf("Redis heard of %d events again and %d generations were begun", s.CaughtUp, s.Renewed)
			}
		})
	}
}

func TestRead_NeverShowsLessThanThisNodeHasShown(t *testing.T) {
	t.Parallel()
	for name, show := range map[string]func(t *testing.T, n *node, p *order.Product) (int, error){
		"in a list": func(t *testing.T, n *node, _ *order.Product) (int, error) {
			got, err := n.products.List(t.Context(), order.ProductFilter{}, order.ProductsByNameAsc, page.Args{})
			return got.Items[0].Version, err
		},
		"by its SKU": func(t *testing.T, n *node, _ *order.Product) (int, error) {
			got, err := n.products.BySKU(t.Context(), "cup")
			return got.Version, err
		},
		"in an event": func(t *testing.T, n *node, p *order.Product) (int, error) {
			got, err := n.events.Read(t.Context(), event.Filter{SubjectID: string(p.ID)}, event.Span{Limit: 1, Backward: true})
			return got[0].SubjectVersion, err
		},
		"in the conflict of a change that was refused": func(t *testing.T, n *node, p *order.Product) (int, error) {
			version := 0
			_, err := n.products.Update(t.Context(), p.ID, func(p *order.Product) error {
				version = p.Version
				return validate.IfVersion(ptr(1), p.Version, p)
			})
			if err == nil {
				return 0, errors.New("the change was not refused")
			}
			return version, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, redis := testenv.SQLite(t), testenv.Redis(t)
			givenWarmRedis(t, url, redis)
			b, a := deaf(t, url, redis), start(t, options{url: url}) // whose write Redis does not hear of either
			p, err := a.products.BySKU(t.Context(), "cup")
			if err != nil {
				t.Fatal(err)
			}
			if got := b.version(t, p.ID); got != 1 {
				t.Fatalf("the node reads version %d, want 1", got)
			}
			a.rename(t, p.ID, "mug")
			if got, err := show(t, b, p); err != nil || got != 2 {
				t.Fatalf("the node shows version %d, %v; want 2", got, err)
			}
			b.cached().Evict()
			if got := b.version(t, p.ID); got != 2 {
				t.Errorf("the node then reads version %d, want 2", got)
			}
		})
	}
}

func TestRead_OfWhatDoesNotExistIsNotKept(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	p, s, err := order.NewProduct(order.ProductInput{SKU: "cup", Name: "cup", Price: eur}, at)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.version(t, p.ID); got != 0 {
		t.Fatalf("what does not exist has version %d", got)
	}
	if _, err := n.db.Products().Create(t.Context(), p, s); err != nil { // past the cache
		t.Fatal(err)
	}
	if got := n.version(t, p.ID); got != 1 {
		t.Errorf("once it exists it has version %d, want 1", got)
	}
}

func TestRead_ThatFailsIsNotKept(t *testing.T) {
	t.Parallel()
	n := start(t, options{})
	p := n.product(t, "cup", 1)
	fail := func([]uid.Product) error { return errors.New("no") }
	n.slow.after.Store(&fail)
	if _, err := n.products.ByIDs(t.Context(), []uid.Product{p.ID}); err == nil {
		t.Fatal("a failed read gave no error")
	}
	n.slow.after.Store(nil)
	if got := n.version(t, p.ID); got != 1 {
		t.Errorf("the next read shows version %d, want 1", got)
	}
}

func TestRead_PassesTheCacheByWhileTheLogIsNotFollowed(t *testing.T) {
	t.Parallel()
	n := start(t, options{paused: true})
	p := n.product(t, "cup", 1)
	for range 3 {
		if got := n.statements(func() { n.version(t, p.ID) }); got != 1 {
			t.Errorf("a read took %d statements, want 1", got)
		}
	}
	if _, ok := n.cached().Peek(p.ID); ok {
		t.Error("Peek shows what may be old")
	}
}

func TestRead_PassesTheCacheByWhileTheLogsReaderLags(t *testing.T) {
	t.Parallel()
	n := start(t, options{hub: event.HubConfig{Poll: time.Hour}, cfg: cacheConfig{MaxLag: 100 * time.Millisecond}})
	p := n.product(t, "cup", 1)
	await(t, "the reader to lag", func() bool { return n.hub.Lag() > 100*time.Millisecond })
	for range 3 {
		if got := n.statements(func() { n.version(t, p.ID) }); got != 1 {
			t.Errorf("a read took %d statements, want 1", got)
		}
	}
	if s := n.cache.Stats(); s.Bypasses == 0 || s.Entities["product"].Bypassed != 3 {
		t.Errorf("the counters say %+v", s)
	}
}

func TestPeek_AnswersFromMemoryAlone(t *testing.T) {
	t.Parallel()
	n := start(t, options{})
	p := n.product(t, "cup", 1)
	if _, ok := n.cached().Peek(p.ID); ok {
		t.Error("Peek shows what was not read")
	}
	n.version(t, p.ID)
	if got, ok := n.cached().Peek(p.ID); !ok || got.Version != 1 {
		t.Errorf("Peek = %+v, %v; want version 1", got, ok)
	}
	n.rename(t, p.ID, "mug")
	if got, ok := n.cached().Peek(p.ID); ok {
		t.Errorf("Peek shows version %d after a change", got.Version)
	}
}

func TestRead_EqualMissesAreOneQuery(t *testing.T) {
	t.Parallel()
	n := start(t, options{})
	var ids []uid.Product
	for i := range 100 {
		ids = append(ids, n.product(t, fmt.Sprint("sku", i), 1).ID)
	}
	var asked atomic.Int64
	begun, release := make(chan struct{}, 2), make(chan struct{})
	stop := func(ids []uid.Product) error {
		asked.Add(int64(len(ids)))
		begun <- struct{}{}
		<-release
		return nil
	}
	n.slow.after.Store(&stop)
	var wg sync.WaitGroup
	read := func(ids []uid.Product) {
		wg.Go(func() {
			if found, err := n.products.ByIDs(t.Context(), ids); err != nil || len(found) != len(ids) {
				t.Errorf("read %d of %d products, %v", len(found), len(ids), err)
			}
		})
	}
	read(ids[:60])
	<-begun
	read(ids)
	<-begun
	for range 50 {
		read(ids[:1])
	}
	close(release)
	wg.Wait()
	if got := asked.Load(); got != 100 {
		t.Errorf("52 reads of 100 products asked the database for %d, want each once", got)
	}
}

func ptr[T any](v T) *T { return &v }
