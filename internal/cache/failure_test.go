package cache_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// record collects log lines.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *record) count(text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.buf.String(), text)
}

func TestRedis_opens_the_circuit_breaker_and_syncs_before_it_closes(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(t *testing.T, b *testenv.Broker, n *node) (mend func()){
		"gone": func(_ *testing.T, b *testenv.Broker, _ *node) func() {
			b.Halt()
			return b.Start
		},
		"slow": func(t *testing.T, _ *testenv.Broker, n *node) func() {
			if err := n.cache.RedisClient().Do(t.Context(), "CLIENT", "PAUSE", 8000).Err(); err != nil {
				t.Fatal(err)
			}
			return func() {} // it ends by itself
		},
		"full": func(t *testing.T, _ *testenv.Broker, n *node) func() {
			if err := n.cache.RedisClient().ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := n.cache.RedisClient().ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
					t.Error(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, lines := testenv.RedisBroker(t), &record{}
			// Above what a dial takes on a busy machine, or Redis cannot be warmed; far below the pause.
			cfg := cache.Config{RedisTime: 500 * time.Millisecond}
			n := start(t, options{redis: b.URL, cfg: cfg, log: slog.New(slog.NewTextHandler(lines, nil))})
			p := n.product(t, "cup", 1)
			n.caughtUp(t, n)
			n.warm(t, p.ID)
			mend := breakIt(t, b, n)
			for want := 2; want < 12; want++ {
				n.rename(t, p.ID, strings.Repeat("x", want))
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // no read waits for Redis
				found, err := n.products.ByIDs(ctx, []uid.Product{p.ID})
				cancel()
				if got := found[p.ID]; err != nil || got == nil || got.Version != want {
					t.Errorf("without Redis the node reads %+v, %v; want version %d", got, err, want)
				}
			}
			testenv.Eventually(t, "the circuit breaker opens", func() bool { n.version(t, p.ID); n.cache.Evict(); return n.cache.Stats().Redis.Open })
			errs := n.cache.Stats().Redis.Errors
			for range 100 {
				n.cache.Evict()
				n.version(t, p.ID)
			}
			if more := n.cache.Stats().Redis.Errors - errs; more > 20 {
				t.Errorf("100 reads called a failing Redis %d times", more)
			}
			mend()
			testenv.Eventually(t, "the circuit breaker closes", func() bool { return !n.cache.Stats().Redis.Open })
			n.caughtUp(t, n)
			n.cache.Evict()
			if got := n.version(t, p.ID); got != 11 {
				t.Errorf("after Redis came back the node reads version %d, want 11", got)
			}
			if down, up := lines.count("circuit breaker open"), lines.count("circuit breaker closed"); down != up || down > 3 {
				t.Errorf("the circuit breaker was logged as open %d times and as closed %d times", down, up)
			}
		})
	}
}

func TestRedis_treats_garbage_as_a_miss_and_replaces_it(t *testing.T) {
	t.Parallel()
	for name, garbage := range map[string]any{
		"nothing":               "",
		"text":                  "hello",
		"a damaged value":       `v1:00000000{"ID":"prd_1"}`,
		"a value cut short":     "v1:",
		"an older format":       `{"version":1}`,
		"another row's value":   "other",
		"a version that is not": "vx:",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, options{redis: testenv.Redis(t)})
			p, other := n.product(t, "cup", 1), n.product(t, "pot", 1)
			n.caughtUp(t, n)
			n.warm(t, p.ID)
			n.warm(t, other.ID)
			c, key := n.cache.RedisClient(), n.cache.RedisKey("product", string(p.ID))
			if garbage == "other" {
				var err error
				if garbage, err = c.Get(t.Context(), n.cache.RedisKey("product", string(other.ID))).Result(); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Set(t.Context(), key, garbage, time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
			n.cache.Evict()
			if got := n.version(t, p.ID); got != 1 {
				t.Errorf("the node reads version %d, want 1", got)
			}
			testenv.Eventually(t, "Redis holds the value again", func() bool {
				v, err := c.Get(t.Context(), key).Result()
				return err == nil && v != garbage && strings.HasPrefix(v, "v1:")
			})
		})
	}
}

func TestRedis_begins_a_generation_if_its_state_is_garbage(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	p := n.product(t, "cup", 1)
	n.caughtUp(t, n)
	n.warm(t, p.ID)
	meta := n.cache.RedisMetaKey()
	for _, spoil := range []func() error{
		func() error { return n.cache.RedisClient().HSet(t.Context(), meta, "p", "x").Err() },
		func() error { return n.cache.RedisClient().HDel(t.Context(), meta, "g").Err() },
		func() error { return n.cache.RedisClient().HSet(t.Context(), meta, "p", "1000000").Err() },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		want := n.rename(t, p.ID, uniqueName())
		n.cache.Evict()
		if got := n.version(t, p.ID); got != want {
			t.Errorf("the node reads version %d, want %d", got, want)
		}
	}
}

func TestRedis_holds_no_secrets(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	u := n.userWith(t, "the hash of a password")
	n.caughtUp(t, n)
	c := n.cache.RedisClient()
	testenv.Eventually(t, "Redis holds the account", func() bool {
		n.readUser(t, u.ID)
		v, err := c.Get(t.Context(), n.cache.RedisKey("user", string(u.ID))).Result()
		return err == nil && strings.HasPrefix(v, "v")
	})
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if v, err := c.Dump(t.Context(), k).Result(); err != nil || strings.Contains(v, "hash of") {
			t.Errorf("Redis holds a password's hash under %s (%v)", k, err)
		}
	}
}
