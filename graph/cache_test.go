package graph_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// newCached returns a server with caches in front of its stores, as a node has them,
// once they are ready; without a Redis if its URL is empty.
func newCached(t testing.TB, database, remote string) *server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	var c *cache.Cache
	s := newServer(t, database, func(s *server, _ stores) stores {
		var err error
		// a busy machine must not make the cache step aside
		cfg := cache.Config{Bytes: 64 << 20, RedisURL: remote, Secret: [secrets.Size]byte{1}, MaxLag: time.Minute, RedisTime: 5 * time.Second}
		if c, err = cache.New(cfg, s.hub, log); err != nil {
			t.Fatal(err)
		}
		s.db = s.db.WithHooks(store.Hooks{Committed: c.Invalidate})
		return stores{c.Users(s.db.Users()), c.Products(s.db.Products()), c.Orders(s.db.Orders()), c.Events(s.db.Events())}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return s.hub.Run(ctx) })
	g.Go(func() error { return c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		c.Close()
	})
	testenv.Eventually(t, "the cache is ready", func() bool {
		return s.hub.Lag() <= 30*time.Second && (remote == "" || c.Stats().Redis.Ready)
	})
	return s
}

func TestCallers_get_the_same_with_and_without_a_cache(t *testing.T) {
	t.Parallel()
	url := testenv.SQLite(t)
	answersAlike(t, url, func() *server { return newCached(t, url, "") })
}

// quiet leaves out what following the log takes.
func (s *server) quiet(t *testing.T, query string, vars map[string]any) (took []string) {
	t.Helper()
	s.take()
	s.ask(t, staff, query, vars)
	for _, q := range s.take() {
		if !isOfLog(q) {
			took = append(took, q)
		}
	}
	return took
}

func TestCache_leaves_few_statements_to_whole_requests(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		newServer(t, url).fill(t, demo.Size{Users: 120, Orders: 300, Lines: 3})
		s := newCached(t, url, "")
		if cold, warm := len(s.quiet(t, fiftyOrders, nil)), len(s.quiet(t, fiftyOrders, nil)); cold > 4 || warm > 1 {
			t.Errorf("50 orders with user, items and product took %d statements cold and %d warm, want at most 4 and 1", cold, warm)
		}
	})
}

// TestCache_answers_by_id_from_memory_or_in_one_round_trip has one process fill Redis
// and another one start cold.
func TestCache_answers_by_id_from_memory_or_in_one_round_trip(t *testing.T) {
	t.Parallel()
	database, shared := testenv.Postgres(t), testenv.Redis(t)
	u, err := url.Parse(shared)
	if err != nil {
		t.Fatal(err)
	}
	wire := testenv.NewProxy(t, u.Host)
	plain := newServer(t, database)
	plain.fill(t, demo.Size{Users: 40, Orders: 1, Lines: 1})
	users := plain.ask(t, staff, `{ users(first: 30) { nodes { id } } }`, nil)["users"].(map[string]any)["nodes"].([]any)
	first := newCached(t, database, shared)
	u.Host = wire.Addr
	second := newCached(t, database, u.String())
	const read = `query($id: ID!) { user(id: $id) { username email } }`
	for _, n := range users {
		first.ask(t, staff, read, n.(map[string]any))
	}
	awaitValues(t, shared, len(users))
	second.ask(t, staff, read, users[0].(map[string]any)) // it is connected now
	once := 0
	for _, n := range users[1:] {
		before := wire.Sent()
		if took := second.quiet(t, read, n.(map[string]any)); len(took) != 0 {
			t.Errorf("a user that Redis holds took %q", took)
		}
		trips := wire.Sent() - before
		if trips == 0 {
			t.Error("a process that has just started answered without Redis")
		}
		if trips == 1 {
			once++
		}
		if took := second.quiet(t, read, n.(map[string]any)); len(took) != 0 {
			t.Errorf("a user that the process holds took %q", took)
		}
	}
	if most := len(users[1:]) * 3 / 4; once < most { // now and then the cache itself says something
		t.Errorf("%d of %d users took one round trip, want at least %d", once, len(users[1:]), most)
	}
	before := wire.Sent()
	for _, n := range users {
		second.ask(t, staff, read, n.(map[string]any))
	}
	if trips := wire.Sent() - before; trips > len(users)/4 {
		t.Errorf("%d users that the process holds took %d round trips, want none but the cache's own", len(users), trips)
	}
}

// awaitValues waits until Redis holds so many rows: they are stored outside the
// requests that read them.
func awaitValues(t *testing.T, url string, n int) {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(opts)
	defer client.Close()
	testenv.Eventually(t, fmt.Sprintf("Redis holds %d rows", n), func() bool {
		held, err := client.Eval(t.Context(), `local n = 0
			for _, k in ipairs(redis.call('KEYS', '*:user:*')) do
				if string.sub(redis.call('GET', k), 1, 1) == 'v' then n = n + 1 end
			end
			return n`, nil).Int()
		if err != nil {
			t.Fatal(err)
		}
		return held >= n
	})
}
