package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// world is what the model knows: two nodes, and the newest version of each
// product that a client has seen through each of them.
type world struct {
	nodes    []*node
	ids      []uid.Product
	seen     [2]map[uid.Product]*atomic.Int64
	failures atomic.Int64
	first    atomic.Pointer[string]
}

func newWorld(t *testing.T, careless bool) *world {
	t.Helper()
	url, redis, both := testenv.SQLite(t), testenv.Redis(t), &notify.Memory{}
	w := &world{}
	for i := range w.seen {
		// Little room, so that much is evicted, and a life that ends within the test.
		n := start(t, options{url: url, redis: redis, bus: both, cfg: cacheConfig{Bytes: 16 << 10, TTL: 200 * time.Millisecond, SettleTime: 50 * time.Millisecond}})
		delay := func([]uid.Product) error {
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			return nil
		}
		n.slow.after.Store(&delay)
		if careless {
			n.cache.Careless()
		}
		w.nodes = append(w.nodes, n)
		w.seen[i] = make(map[uid.Product]*atomic.Int64)
	}
	for i := range 12 {
		id := w.nodes[0].product(t, fmt.Sprint("sku", i), 1).ID
		w.ids = append(w.ids, id)
		for _, seen := range w.seen {
			seen[id] = &atomic.Int64{}
		}
	}
	return w
}

// saw checks what a call shows against what was known before it began.
func (w *world) saw(i int, id uid.Product, known, version int64, how string) {
	if version < known {
		w.failures.Add(1)
		text := fmt.Sprintf("node %d shows version %d of %s %s after it has shown %d", i, version, id, how, known)
		w.first.CompareAndSwap(nil, &text)
	}
	for seen := w.seen[i][id]; ; {
		old := seen.Load()
		if old >= version || seen.CompareAndSwap(old, version) {
			return
		}
	}
}

// client makes random calls, one after the other.
func (w *world) client(ctx context.Context, steps int, rnd *rand.Rand) error {
	for range steps {
		i, id := rnd.IntN(2), w.ids[rnd.IntN(len(w.ids))]
		n, known := w.nodes[i], w.seen[i][id].Load()
		switch what := rnd.IntN(100); {
		case what < 10:
			p, err := n.products.Update(ctx, id, func(p *order.Product) error {
				return p.Apply(order.ProductChange{Name: validate.Of(fmt.Sprint("name ", rnd.Int64()))}, at)
			})
			if err != nil {
				return err
			}
			w.saw(i, id, known, int64(p.Version), "as it writes it")
		case what < 20:
			before := make(map[uid.Product]int64)
			for _, id := range w.ids {
				before[id] = w.seen[i][id].Load()
			}
			found, err := n.products.List(ctx, order.ProductFilter{}, order.ProductsByCreatedAsc, page.Args{})
			if err != nil {
				return err
			}
			for _, p := range found.Items {
				w.saw(i, p.ID, before[p.ID], int64(p.Version), "in a list")
			}
		default:
			found, err := n.products.ByIDs(ctx, []uid.Product{id})
			if err != nil {
				return err
			}
			w.saw(i, id, known, int64(found[id].Version), "by its id")
		}
	}
	return nil
}

// run lets clients run while Redis is flushed, loses keys and goes back in time.
func (w *world) run(t *testing.T, steps int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var clients, trouble sync.WaitGroup
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for i := range 16 {
		clients.Go(func() {
			if err := w.client(ctx, steps, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
				t.Error(err)
			}
		})
	}
	trouble.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 99))
		c, restore := w.nodes[0].cache.Client(), func() {}
		for ctx.Err() == nil {
			switch rnd.IntN(5) {
			case 0:
				c.FlushDB(ctx)
			case 1:
				if k, err := c.RandomKey(ctx).Result(); err == nil {
					c.Del(ctx, k)
				}
			case 2:
				restore = w.snapshot(ctx)
			case 3:
				restore()
			default:
				w.nodes[rnd.IntN(2)].cached().Evict()
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(rnd.IntN(20)) * time.Millisecond):
			}
		}
	})
	clients.Wait()
	cancel()
	trouble.Wait()
}

// snapshot is node.dump while others write.
func (w *world) snapshot(ctx context.Context) (restore func()) {
	c := w.nodes[0].cache.Client()
	dump := c.Eval(ctx, `local out = {} for i, k in ipairs(redis.call('KEYS', '*')) do out[2*i-1] = k out[2*i] = redis.call('DUMP', k) end return out`, nil).Val()
	saved, _ := dump.([]any)
	return func() {
		c.Eval(ctx, `redis.call('FLUSHDB') for i = 1, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 60000, ARGV[i+1]) end`, nil, saved...)
	}
}

func (w *world) verdict() string {
	if text := w.first.Load(); text != nil {
		return fmt.Sprintf("%d times a client saw an older version than before; first %s", w.failures.Load(), *text)
	}
	return ""
}

func TestModel_NobodySeesAnOlderVersionThanBefore(t *testing.T) {
	t.Parallel()
	w, steps := newWorld(t, false), 300
	if os.Getenv("BACKPLANE_TEST_SOAK") == "on" {
		steps = 20_000
	}
	w.run(t, steps)
	if bad := w.verdict(); bad != "" {
		t.Error(bad)
	}
	for _, n := range w.nodes {
		s := n.cache.Stats()
		if l := s.Entities["product"]; l.Hits == 0 || l.RedisHits == 0 || l.FillsVoid+l.FillsOlder == 0 {
			t.Errorf("the test does not try what it should: %+v", l)
		}
		w.unchanged(t, n)
	}
}

// unchanged checks that nobody has changed a value that the cache shares.
func (w *world) unchanged(t *testing.T, n *node) {
	t.Helper()
	stored, err := n.db.Products().ByIDs(t.Context(), w.ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range w.ids {
		if got, ok := n.cached().Peek(id); ok && got.Version == stored[id].Version && got.Name != stored[id].Name {
			t.Errorf("the cache shares %+v, stored is %+v", got, stored[id])
		}
	}
}

// The test of the test: a cache that keeps what is read without a look at
// versions and tokens is found out.
func TestModel_FindsACarelessCache(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	for range 20 {
		if w.run(t, 100); w.failures.Load() > 0 {
			return
		}
	}
	t.Error("nobody noticed that fills were kept without a look at version and token")
}
