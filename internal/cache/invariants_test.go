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

	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// startWithoutNotifications starts a node that does not learn of other nodes' writes.
func startWithoutNotifications(t *testing.T, url, redis string) *node {
	t.Helper()
	return start(t, options{url: url, redis: redis, hub: eventlog.HubConfig{Poll: time.Hour}})
}

// warmRedis leaves a product in the database and in Redis, and no node.
func warmRedis(t *testing.T, url, redis string) {
	t.Run("before", func(t *testing.T) {
		n := start(t, options{url: url, redis: redis})
		p := n.product(t, "cup", 1)
		n.caughtUp(t, n)
		n.warm(t, p.ID)
	})
}

func TestRead_of_a_held_row_takes_no_statement_and_no_round_trip(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	p := n.product(t, "cup", 1)
	n.caughtUp(t, n)
	if got := n.statements(func() { n.version(t, p.ID) }); got != 1 {
		t.Errorf("a cold read took %d statements, want 1", got)
	}
	testenv.Eventually(t, "Redis has the fill", func() bool { return n.fills() == 1 })
	calls := &roundTrips{}
	n.cache.RedisClient().AddHook(calls)
	if got := n.statements(func() { n.version(t, p.ID) }); got != 0 || calls.n.Load() != 0 {
		t.Errorf("a warm read took %d statements and %d round trips, want none", got, calls.n.Load())
	}
}

func TestRead_in_a_new_process_takes_one_round_trip(t *testing.T) {
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
	testenv.Eventually(t, "Redis has the fills", func() bool { return first.fills() == 100 })

	cold, calls := start(t, options{url: url, redis: redis}), &roundTrips{}
	cold.cache.RedisClient().AddHook(calls)
	var got map[uid.Product]*order.Product
	if n := cold.statements(func() { got, err = cold.products.ByIDs(t.Context(), ids) }); n != 0 || err != nil || calls.n.Load() != 1 {
		t.Errorf("a cold process took %d statements, %d round trips and got %v; want one round trip", n, calls.n.Load(), err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(order.Product{})); diff != "" {
		t.Errorf("what comes from Redis differs from what was read (-read +Redis):\n%s", diff)
	}
}

func TestRead_shows_own_writes_at_once(t *testing.T) {
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

func TestRead_shows_writes_of_other_nodes_once_a_subscriber_has_the_event(t *testing.T) {
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
		if _, _, err := sub.Poll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := b.version(t, p.ID); got != want {
			t.Fatalf("after the event a subscriber reads version %d, want %d", got, want)
		}
	}
}

// A slow read that began before a change must not be kept after it, even if the knowledge
// of the change is lost.
func TestFill_of_a_read_from_before_a_change_is_refused(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*node, uid.Product){
		"while the newer value is held":    func(*node, uid.Product) {},
		"once the newer value was evicted": func(n *node, _ uid.Product) { n.cache.Evict() },
		"once the newer value expired":     func(n *node, id uid.Product) { n.cached.Expire(id) },
		"once everything was invalidated":  func(n *node, _ uid.Product) { n.cache.InvalidateAll() },
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
			n.cache.DropMinimumVersions() // a read may outlast them
			if got := finish(); got != 1 {
				t.Fatalf("the slow read shows version %d, want 1", got)
			}
			if got := n.version(t, p.ID); got != 2 {
				t.Errorf("after the slow read the node shows version %d, want 2", got)
			}
		})
	}
}

// The same for an event of another node.
func TestFill_of_a_read_from_before_an_event_is_refused(t *testing.T) {
	t.Parallel()
	url, both := testenv.SQLite(t), &notify.Memory{}
	a, b := start(t, options{url: url, bus: both}), start(t, options{url: url, bus: both})
	p := a.product(t, "cup", 1)
	b.caughtUp(t, a)
	finish := b.slowRead(t, p.ID)
	a.rename(t, p.ID, "mug")
	b.caughtUp(t, a)
	b.cache.DropMinimumVersions()
	finish()
	if got := b.version(t, p.ID); got != 2 {
		t.Errorf("after the slow read the node shows version %d, want 2", got)
	}
}

func TestFill_of_Redis_is_refused_once_its_token_is_gone(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, n *node, id uid.Product) error{
		"while the tombstone stands": func(*testing.T, *node, uid.Product) error { return nil },
		"once the tombstone was evicted or expired": func(t *testing.T, n *node, id uid.Product) error {
			return n.cache.RedisClient().Del(t.Context(), n.cache.RedisKey("product", string(id))).Err()
		},
		"once Redis was flushed": func(t *testing.T, n *node, _ uid.Product) error {
			return n.cache.RedisClient().FlushDB(t.Context()).Err()
		},
		"once the generation was lost": func(t *testing.T, n *node, _ uid.Product) error {
			return n.cache.RedisClient().Del(t.Context(), n.cache.RedisMetaKey()).Err()
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
			testenv.Eventually(t, "Redis has refused the fill", func() bool { return b.fills() == 1 })
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

func TestRedis_with_older_data_is_not_read(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]bool{"while its minimum version is known": false, "once that is dropped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, options{redis: testenv.Redis(t), cfg: cache.Config{CheckpointInterval: time.Hour}})
			p := n.product(t, "cup", 1)
			n.caughtUp(t, n)
			n.warm(t, p.ID)
			restart := n.dump(t)
			n.rename(t, p.ID, "mug")
			n.caughtUp(t, n)
			n.warm(t, p.ID)
			if drop {
				testenv.Eventually(t, "the minimum version is dropped", func() bool {
					n.cache.TakeCheckpoint()
					n.cache.Evict()
					return n.cached.MinimumVersion(p.ID) == 0
				})
			}
			restart() // back to version 1, and to the offset of then
			n.cache.Evict()
			if got := n.version(t, p.ID); got != 2 {
				t.Errorf("the node reads version %d, want 2, which it has read", got)
			}
			if n.cache.Stats().Entities["product"].RedisStale == 0 {
				t.Error("no value of Redis was ignored as stale")
			}
			n.caughtUpAfter(t, func() { n.rename(t, p.ID, "jug") })
			n.cache.Evict()
			if got := n.version(t, p.ID); got != 3 {
				t.Errorf("the node reads version %d, want 3", got)
			}
		})
	}
}

func TestRedis_catches_up_with_events_from_while_no_node_ran(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"from the log": 1000, "by a new generation if that is too much": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, redis := testenv.SQLite(t), testenv.Redis(t)
			warmRedis(t, url, redis)
			alone := start(t, options{url: url}) // writes without Redis
			p, err := alone.products.BySKU(t.Context(), "cup")
			if err != nil {
				t.Fatal(err)
			}
			alone.rename(t, p.ID, "mug")
			alone.rename(t, p.ID, "jug")
			cold := start(t, options{url: url, redis: redis, cfg: cache.Config{CatchUpLimit: limit}})
			if got := cold.version(t, p.ID); got != 3 {
				t.Errorf("the node reads version %d, want 3", got)
			}
			if s := cold.cache.Stats().Redis; (s.CaughtUp == 2) != (limit == 1000) || (s.Renewed == 1) != (limit == 1) {
				t.Errorf("%d events were applied again and %d generations begun", s.CaughtUp, s.Renewed)
			}
		})
	}
}

func TestRead_never_shows_an_older_version_than_this_node_has_shown(t *testing.T) {
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
			got, err := n.events.Read(t.Context(), event.Filter{SubjectID: string(p.ID)}, eventlog.Span{Limit: 1, Backward: true})
			return got[0].SubjectVersion, err
		},
		"in the conflict of a change that was refused": func(t *testing.T, n *node, p *order.Product) (int, error) {
			version := 0
			_, err := n.products.Update(t.Context(), claim.None, p.ID, func(p *order.Product) error {
				version = p.Version
				return validate.IfVersion(t.Context(), ptr(1), p.Version, p)
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
			warmRedis(t, url, redis)
			b, a := startWithoutNotifications(t, url, redis), start(t, options{url: url}) // whose write is not applied to Redis either
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
			b.cache.Evict()
			if got := b.version(t, p.ID); got != 2 {
				t.Errorf("the node then reads version %d, want 2", got)
			}
		})
	}
}

func TestRead_does_not_keep_absence(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	p, s, err := order.NewProduct(order.ProductInput{SKU: "cup", Name: "cup", Price: eur}, at)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.version(t, p.ID); got != 0 {
		t.Fatalf("a product that does not exist has version %d", got)
	}
	if _, err := n.db.Products().Create(t.Context(), claim.None, p, s); err != nil { // past the cache
		t.Fatal(err)
	}
	if got := n.version(t, p.ID); got != 1 {
		t.Errorf("once it exists it has version %d, want 1", got)
	}
}

func TestRead_does_not_keep_errors(t *testing.T) {
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

func TestRead_bypasses_the_cache_while_no_hub_runs(t *testing.T) {
	t.Parallel()
	n := start(t, options{paused: true})
	p := n.product(t, "cup", 1)
	for range 3 {
		if got := n.statements(func() { n.version(t, p.ID) }); got != 1 {
			t.Errorf("a read took %d statements, want 1", got)
		}
	}
	if _, ok := n.cached.Peek(p.ID); ok {
		t.Error("Peek shows a value that may be outdated")
	}
}

func TestRead_bypasses_the_cache_while_the_hub_lags(t *testing.T) {
	t.Parallel()
	n := start(t, options{hub: eventlog.HubConfig{Poll: time.Hour}, cfg: cache.Config{MaxLag: 100 * time.Millisecond}})
	p := n.product(t, "cup", 1)
	testenv.Eventually(t, "the hub lags", func() bool { return n.hub.Lag() > 100*time.Millisecond })
	for range 3 {
		if got := n.statements(func() { n.version(t, p.ID) }); got != 1 {
			t.Errorf("a read took %d statements, want 1", got)
		}
	}
	if s := n.cache.Stats(); s.Bypasses == 0 || s.Entities["product"].Bypassed != 3 {
		t.Errorf("the counters say %+v", s)
	}
}

func TestPeek_reads_process_memory_only(t *testing.T) {
	t.Parallel()
	n := start(t, options{})
	p := n.product(t, "cup", 1)
	if _, ok := n.cached.Peek(p.ID); ok {
		t.Error("Peek shows a product that was not read")
	}
	n.version(t, p.ID)
	if got, ok := n.cached.Peek(p.ID); !ok || got.Version != 1 {
		t.Errorf("Peek = %+v, %v; want version 1", got, ok)
	}
	n.rename(t, p.ID, "mug")
	if got, ok := n.cached.Peek(p.ID); ok {
		t.Errorf("Peek shows version %d after a change", got.Version)
	}
}

func TestRead_merges_equal_misses_into_one_query(t *testing.T) {
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
		t.Errorf("52 reads of 100 products loaded %d from the database, want each once", got)
	}
}

func ptr[T any](v T) *T { return &v }
