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

	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// model is two nodes, and the newest version of each product that a client has seen through each of
// them.
type model struct {
	nodes    []*node
	ids      []uid.Product
	seen     [2]map[uid.Product]*atomic.Int64
	failures atomic.Int64
	first    atomic.Pointer[string]
}

// newModel starts two nodes. Decorate stands between their clients and their cache.
func newModel(t *testing.T, decorate func(order.ProductStore) order.ProductStore) *model {
	t.Helper()
	url, redis, both := testenv.SQLite(t), testenv.Redis(t), &notify.Memory{}
	w := &model{}
	for i := range w.seen {
		// Little room, so that much is evicted, and a life that ends within the test.
		n := start(t, options{url: url, redis: redis, bus: both, cfg: cache.Config{Bytes: 16 << 10, TTL: 200 * time.Millisecond, CheckpointInterval: 50 * time.Millisecond}})
		delay := func([]uid.Product) error {
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			return nil
		}
		n.slow.after.Store(&delay)
		n.products = decorate(n.products)
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

// saw checks the version that a call shows against the one known before it began.
func (w *model) saw(i int, id uid.Product, known, version int64, how string) {
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
func (w *model) client(ctx context.Context, steps int, rnd *rand.Rand) error {
	for range steps {
		i, id := rnd.IntN(2), w.ids[rnd.IntN(len(w.ids))]
		n, known := w.nodes[i], w.seen[i][id].Load()
		switch what := rnd.IntN(100); {
		case what < 10:
			p, err := n.products.Update(ctx, claim.None, id, func(p *order.Product) error {
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

// run runs clients while Redis is flushed, loses keys and is restored to older data.
func (w *model) run(t *testing.T, steps int) {
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
		c, restore := w.nodes[0].cache.RedisClient(), func() {}
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
				w.nodes[rnd.IntN(2)].cache.Evict()
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
func (w *model) snapshot(ctx context.Context) (restore func()) {
	c := w.nodes[0].cache.RedisClient()
	dump := c.Eval(ctx, `local out = {} for i, k in ipairs(redis.call('KEYS', '*')) do out[2*i-1] = k out[2*i] = redis.call('DUMP', k) end return out`, nil).Val()
	saved, _ := dump.([]any)
	return func() {
		c.Eval(ctx, `redis.call('FLUSHDB') for i = 1, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 60000, ARGV[i+1]) end`, nil, saved...)
	}
}

func (w *model) firstFailure() string {
	if text := w.first.Load(); text != nil {
		return fmt.Sprintf("%d times a client saw an older version than before; first %s", w.failures.Load(), *text)
	}
	return ""
}

func TestModel_no_client_sees_an_older_version_than_before(t *testing.T) {
	t.Parallel()
	w, steps := newModel(t, asItIs), 300
	if os.Getenv("BACKPLANE_TEST_SOAK") == "on" {
		steps = 20_000
	}
	w.run(t, steps)
	if failure := w.firstFailure(); failure != "" {
		t.Error(failure)
	}
	for _, n := range w.nodes {
		s := n.cache.Stats()
		if l := s.Entities["product"]; l.Hits == 0 || l.RedisHits == 0 || l.FillsInvalidated+l.FillsOlder == 0 {
			t.Errorf("the test did not reach every level: %+v", l)
		}
		w.unchanged(t, n)
	}
}

// unchanged checks that no caller has changed a value that the cache shares.
func (w *model) unchanged(t *testing.T, n *node) {
	t.Helper()
	stored, err := n.db.Products().ByIDs(t.Context(), w.ids)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range w.ids {
		if got, ok := n.cached.Peek(id); ok && got.Version == stored[id].Version && got.Name != stored[id].Name {
			t.Errorf("the cache shares %+v, stored is %+v", got, stored[id])
		}
	}
}

func asItIs(s order.ProductStore) order.ProductStore { return s }

// staleProducts is a wrong cache: it keeps what it has read whatever versions and tokens say, and
// drops a product only when this node changes it.
type staleProducts struct {
	order.ProductStore

	held sync.Map // of *order.Product, by id
}

func (s *staleProducts) ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Product, error) {
	found := make(map[uid.Product]*order.Product, len(ids))
	var missing []uid.Product
	for _, id := range ids {
		if p, ok := s.held.Load(id); ok {
			found[id] = p.(*order.Product)
		} else {
			missing = append(missing, id)
		}
	}
	read, err := s.ProductStore.ByIDs(ctx, missing)
	for id, p := range read {
		s.held.Store(id, p)
		found[id] = p
	}
	return found, err
}

func (s *staleProducts) Update(ctx context.Context, cl claim.Claim, id uid.Product, fn func(*order.Product) error) (*order.Product, error) {
	defer s.held.Delete(id)
	return s.ProductStore.Update(ctx, cl, id, fn)
}

// The test of the test: the model finds a cache that ignores versions and fill tokens.
func TestModel_finds_a_cache_that_ignores_versions(t *testing.T) {
	t.Parallel()
	w := newModel(t, func(s order.ProductStore) order.ProductStore { return &staleProducts{ProductStore: s} })
	for range 20 {
		if w.run(t, 100); w.failures.Load() > 0 {
			return
		}
	}
	t.Error("the model did not find that values were kept without regard to version and token")
}
