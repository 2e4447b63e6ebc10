package cache_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC)

// node is the stack of a process between its domains and the database.
type node struct {
	db       *store.DB
	cache    *cache.Cache
	hub      *eventlog.Hub
	users    user.Store
	products order.ProductStore
	orders   order.Store
	cached   *cache.Products // of products
	events   eventlog.Store

	redis   string
	slow    *slowProducts // between cache and store
	queries atomic.Int64  // statements, except those of the hub and the sequencer
}

var eur = money.Money{Minor: 250, Currency: "EUR"}

// options of a node; the zero value is a node alone, without Redis.
type options struct {
	url    string         // of the database; default a new SQLite file
	redis  string         // its URL
	bus    *notify.Memory // shared with other nodes
	cfg    cache.Config
	log    *slog.Logger
	hub    eventlog.HubConfig
	paused bool // its hub does not run
}

// start returns a running node, which ends with the test.
func start(t testing.TB, o options) *node {
	t.Helper()
	n := prepare(t, o)
	if o.paused {
		return n
	}
	testenv.Eventually(t, "the hub has read the log", func() bool { return n.hub.Lag() < time.Minute })
	if o.redis != "" {
		testenv.Eventually(t, "Redis is ready", func() bool { return n.cache.Stats().Redis.Ready })
	}
	return n
}

func prepare(t testing.TB, o options) *node {
	t.Helper()
	n := &node{redis: o.redis}
	o.url = cmp.Or(o.url, testenv.SQLite(t))
	n.db = testenv.Open(t, store.Config{URL: o.url, OnStatement: n.count})
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if o.bus == nil {
		o.bus = &notify.Memory{}
	}
	o.cfg.Bytes, o.cfg.RedisURL = cmp.Or(o.cfg.Bytes, 64<<20), o.redis
	if o.cfg.Secret == [secrets.Size]byte{} {
		o.cfg.Secret = [secrets.Size]byte{1}
	}
	o.cfg.RedisTime = cmp.Or(o.cfg.RedisTime, 2*time.Second) // the machine may be busy
	o.cfg.MaxLag = cmp.Or(o.cfg.MaxLag, 20*time.Second)
	feed := n.openFeed(t, o)
	var err error
	if n.cache, err = cache.New(o.cfg, feed.Hub, o.log); err != nil {
		t.Fatal(err)
	}
	n.db = n.db.WithHooks(store.Hooks{Committed: n.cache.Invalidate, Appended: feed.EventsAppended})
	n.slow = &slowProducts{ProductStore: n.db.Products()}
	n.users, n.products, n.orders = n.cache.Users(n.db.Users()), n.cache.Products(n.slow), n.cache.Orders(n.db.Orders())
	n.events = n.cache.Events(n.db.Events())
	n.cached = n.products.(*cache.Products)
	n.run(t, o, feed)
	return n
}

func (n *node) openFeed(t testing.TB, o options) *eventlog.Pipeline {
	t.Helper()
	seq, err := n.db.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	var numbering eventlog.PositionStore
	if seq != nil {
		numbering = seq
		t.Cleanup(func() { seq.Close() })
	}
	feed, err := eventlog.NewPipeline(eventlog.NewLog(n.db.Events()), numbering, o.bus.Join(), o.log, eventlog.PipelineConfig{Hub: o.hub})
	if err != nil {
		t.Fatal(err)
	}
	n.hub = feed.Hub
	return feed
}

func (n *node) run(t testing.TB, o options, feed *eventlog.Pipeline) {
	t.Helper()
	if o.paused {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return feed.Run(ctx) })
	g.Go(func() error { return n.cache.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		n.cache.Close()
	})
}

func (n *node) count(query string) {
	if !strings.Contains(query, "timelines") && !strings.Contains(query, "sequencer") {
		n.queries.Add(1)
	}
}

// statements returns how many statements fn takes.
func (n *node) statements(fn func()) int {
	before := n.queries.Load()
	fn()
	return int(n.queries.Load() - before)
}

// caughtUp waits until the node has read all that the other has written, and it is
// applied to Redis.
func (n *node) caughtUp(t testing.TB, from *node) {
	t.Helper()
	state, err := from.db.Events().State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head := int64(state.Head)
	if from.db.Dialect() == "postgres" {
		head = waitNumbered(t, from)
	}
	testenv.Eventually(t, "the hub is at the head of the log", func() bool { return int64(n.hub.Head().Position) >= head })
	if c := n.cache.RedisClient(); c != nil {
		testenv.Eventually(t, "the log is applied to Redis", func() bool {
			offset, err := c.HGet(t.Context(), n.cache.RedisMetaKey(), "p").Int64()
			return err == nil && offset >= head
		})
	}
}

// caughtUpAfter is caughtUp with what fn writes.
func (n *node) caughtUpAfter(t testing.TB, fn func()) {
	t.Helper()
	fn()
	n.caughtUp(t, n)
}

func waitNumbered(t testing.TB, n *node) (head int64) {
	t.Helper()
	total := func() int64 {
		all, err := n.db.Events().State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return int64(all.Head)
	}
	for before := int64(-1); before != total(); <-time.After(50 * time.Millisecond) { // the sequencer needs a few
		before = total()
	}
	return total()
}

func (n *node) product(t testing.TB, sku string, stock int) *order.Product {
	t.Helper()
	p, s, err := order.NewProduct(order.ProductInput{
		SKU: sku, Name: sku, Price: eur, Stock: stock, Active: true,
	}, at)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = n.products.Create(t.Context(), claim.None, p, s); err != nil {
		t.Fatal(err)
	}
	return p
}

var usernames atomic.Int64

func (n *node) user(t testing.TB, roles ...auth.Role) *user.User {
	t.Helper()
	if len(roles) == 0 {
		roles = []auth.Role{auth.Customer}
	}
	u, err := user.New(user.Profile{Username: fmt.Sprint("user", usernames.Add(1))}, roles, nil, at)
	if err != nil {
		t.Fatal(err)
	}
	if u, err = n.users.Create(t.Context(), claim.None, u, ""); err != nil {
		t.Fatal(err)
	}
	return u
}

// rename changes a product and returns its version then.
func (n *node) rename(t testing.TB, id uid.Product, name string) int {
	t.Helper()
	p, err := n.products.Update(t.Context(), claim.None, id, func(p *order.Product) error {
		return p.Apply(order.ProductChange{Name: validate.Of(name)}, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	return p.Version
}

// version reads the product and returns its version; 0 if there is none.
func (n *node) version(t testing.TB, id uid.Product) int {
	t.Helper()
	found, err := n.products.ByIDs(t.Context(), []uid.Product{id})
	if err != nil {
		t.Fatal(err)
	}
	if found[id] == nil {
		return 0
	}
	return found[id].Version
}

// slowProducts is a store that a test can block between a query and its return.
type slowProducts struct {
	order.ProductStore

	after  atomic.Pointer[func(ids []uid.Product) error]
	before atomic.Pointer[func()] // the next count
}

func (s *slowProducts) Count(ctx context.Context, f order.ProductFilter) (int, error) {
	if fn := s.before.Swap(nil); fn != nil {
		(*fn)()
	}
	return s.ProductStore.Count(ctx, f)
}

func (s *slowProducts) ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Product, error) {
	found, err := s.ProductStore.ByIDs(ctx, ids)
	if fn := s.after.Load(); fn != nil {
		err = errors.Join(err, (*fn)(ids))
	}
	return found, err
}

// slowRead begins a read of the product. It returns once the database has
// answered the node; the read goes on when finish is called, which returns the
// version that it shows.
func (n *node) slowRead(t *testing.T, id uid.Product) (finish func() int) {
	t.Helper()
	begun, release, version := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	stop := func([]uid.Product) error {
		n.slow.after.Store(nil)
		close(begun)
		<-release
		return nil
	}
	n.slow.after.Store(&stop)
	go func() { version <- n.version(t, id) }()
	<-begun
	return func() int {
		close(release)
		return <-version
	}
}

// fills returns how many values the node has sent to Redis, stored or refused.
func (n *node) fills() uint64 {
	l := n.cache.Stats().Entities["product"]
	return l.RedisFills + l.RedisRefused
}

// warm reads the product until Redis holds it.
func (n *node) warm(t testing.TB, id uid.Product) {
	t.Helper()
	testenv.Eventually(t, "Redis holds the product", func() bool {
		n.version(t, id)
		v, err := n.cache.RedisClient().Get(t.Context(), n.cache.RedisKey("product", string(id))).Result()
		return err == nil && strings.HasPrefix(v, "v")
	})
}

// dump saves the data of Redis; restore restores it, as if Redis had been restarted
// with older data.
func (n *node) dump(t testing.TB) (restore func()) {
	t.Helper()
	c, ctx, saved := n.cache.RedisClient(), t.Context(), map[string]string{}
	keys, err := c.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if saved[k], err = c.Dump(ctx, k).Result(); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if err := c.FlushDB(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		for k, v := range saved {
			if err := c.Restore(ctx, k, time.Minute, v).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// roundTrips counts commands and pipelines sent to Redis.
type roundTrips struct{ n atomic.Int64 }

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "hello" { // the handshake of a new connection
			r.n.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if !slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "select" || c.Name() == "client" }) {
			r.n.Add(1)
		}
		return next(ctx, cmds)
	}
}

func (n *node) userWith(t testing.TB, c user.PasswordHash) *user.User {
	t.Helper()
	u, err := user.New(user.Profile{Username: fmt.Sprint("user", usernames.Add(1))}, []auth.Role{auth.Customer}, nil, at)
	if err != nil {
		t.Fatal(err)
	}
	if u, err = n.users.Create(t.Context(), claim.None, u, c); err != nil {
		t.Fatal(err)
	}
	return u
}

func (n *node) readUser(t testing.TB, id uid.User) *user.User {
	t.Helper()
	found, err := n.users.ByIDs(t.Context(), []uid.User{id})
	if err != nil {
		t.Fatal(err)
	}
	return found[id]
}

// uniqueName returns a text that was not used before.
func uniqueName() string { return fmt.Sprint("name ", usernames.Add(1)) }
