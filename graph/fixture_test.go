package graph_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// statements notes what a database is asked.
type statements struct {
	mu   sync.Mutex
	list []string
}

func (s *statements) note(query string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, query)
}

// take returns what was noted since the last call.
func (s *statements) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// server is what executes GraphQL, on a real database and without a transport.
type server struct {
	*statements

	db   *store.DB
	exec *executor.Executor
	hub  *eventlog.Hub

	domains graph.Domains
}

// unread stands for the log, which is not followed here.
type unread struct{}

func (unread) Lag() time.Duration { return 0 }
func (unread) Head() event.Cursor { return event.Cursor{} }

// registryOf returns the use cases of the registry, which know what is stored now.
func registryOf(t testing.TB, db *store.DB) (*registry.Registrar, *registry.PickTracker) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	d := registry.NewDirectory(db.Registry(), unread{}, time.Now, log)
	if err := d.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool, err := balance.NewPool(time.Now, balance.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return registry.NewRegistrar(db.Registry(), d, time.Now), registry.NewPickTracker(d, pool, nil, []byte("secret"), time.Now, log, registry.PickTrackerConfig{})
}

// stores are what the domains of a server stand on.
type stores struct {
	users    user.Store
	products order.ProductStore
	orders   order.Store
	events   eventlog.Store
}

// holding are stores that keep in the process whatever they have read, for ever.
func holding(_ *server, s stores) stores {
	return stores{
		users:    &heldUsers{Store: s.users},
		products: &heldProducts{ProductStore: s.products},
		orders:   &heldOrders{Store: s.orders},
		events:   s.events,
	}
}

// held is what was read of one kind.
type held[K comparable, V any] struct{ m sync.Map }

func (h *held[K, V]) peek(k K) (v V, ok bool) {
	x, ok := h.m.Load(k)
	if ok {
		v, _ = x.(V)
	}
	return v, ok
}

func (h *held[K, V]) through(ctx context.Context, keys []K, read func(context.Context, []K) (map[K]V, error)) (map[K]V, error) {
	found := map[K]V{}
	var missing []K
	for _, k := range keys {
		if v, ok := h.peek(k); ok {
			found[k] = v
		} else {
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	more, err := read(ctx, missing)
	for k, v := range more {
		h.m.Store(k, v)
		found[k] = v
	}
	return found, err
}

type heldUsers struct {
	user.Store
	held held[uid.User, *user.User]
}

func (s *heldUsers) Peek(id uid.User) (*user.User, bool) { return s.held.peek(id) }
func (s *heldUsers) ByIDs(ctx context.Context, ids []uid.User) (map[uid.User]*user.User, error) {
	return s.held.through(ctx, ids, s.Store.ByIDs)
}

type heldProducts struct {
	order.ProductStore
	held   held[uid.Product, *order.Product]
	stocks held[uid.Product, *order.Stock]
}

func (s *heldProducts) Peek(id uid.Product) (*order.Product, bool)    { return s.held.peek(id) }
func (s *heldProducts) PeekStock(id uid.Product) (*order.Stock, bool) { return s.stocks.peek(id) }
func (s *heldProducts) ByIDs(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Product, error) {
	return s.held.through(ctx, ids, s.ProductStore.ByIDs)
}

func (s *heldProducts) Stocks(ctx context.Context, ids []uid.Product) (map[uid.Product]*order.Stock, error) {
	return s.stocks.through(ctx, ids, s.ProductStore.Stocks)
}

type heldOrders struct {
	order.Store
	held  held[uid.Order, *order.Order]
	items held[uid.Order, []order.Item]
}

func (s *heldOrders) Peek(id uid.Order) (*order.Order, bool)      { return s.held.peek(id) }
func (s *heldOrders) PeekItems(id uid.Order) ([]order.Item, bool) { return s.items.peek(id) }
func (s *heldOrders) ByIDs(ctx context.Context, ids []uid.Order) (map[uid.Order]*order.Order, error) {
	return s.held.through(ctx, ids, s.Store.ByIDs)
}

func (s *heldOrders) Items(ctx context.Context, ids []uid.Order) (map[uid.Order][]order.Item, error) {
	return s.items.through(ctx, ids, s.Store.Items)
}

// planned is whether operations of tests run by plans; both executors pass all tests.
var planned = os.Getenv("BACKPLANE_EXECUTOR") != "gqlgen"

// newServer returns a server on the database of the URL, with an event log whose
// hub the test runs if it wants to. Around may put something around the stores.
func newServer(t testing.TB, url string, around ...func(*server, stores) stores) *server {
	t.Helper()
	s := &server{statements: &statements{}}
	s.db = testenv.Open(t, store.Config{URL: url, OnStatement: s.note})
	log := slog.New(slog.DiscardHandler)
	sealer, err := secrets.OpenSealer(t.Context(), s.db.Secrets(), secrets.MasterKey{})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := session.NewService(s.db.Sessions(), sealer, time.Now, log, session.Config{NoRateLimit: true})
	if err != nil {
		t.Fatal(err)
	}
	if s.hub, err = eventlog.NewHub(eventlog.NewLog(s.db.Events()), log, eventlog.HubConfig{}); err != nil {
		t.Fatal(err)
	}
	st := stores{s.db.Users(), s.db.Products(), s.db.Orders(), s.db.Events()}
	for _, wrap := range around {
		st = wrap(s, st)
	}
	events := eventlog.NewLog(st.events)
	off, err := cache.New(cache.Config{}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	services, picks := registryOf(t, s.db)
	domains := app.NewDomains(app.Env{}, s.db, off, s.hub, sessions, &app.Registry{Registrar: services, Picks: picks})
	domains.Users, domains.Products = user.NewService(st.users, nil, time.Now), order.NewCatalog(st.products, time.Now)
	domains.Orders, domains.Log = order.NewService(st.orders, time.Now), events
	s.domains = domains
	s.exec, err = graph.NewExecutor(domains, []byte("secret"), executor.Config{
		Planned: planned,
		Cursors: codec,
		Limits:  executor.Limits{Tokens: 1e6, Fields: 1e5, ExpandedFields: 1e6, Aliases: 1e5, Complexity: 1e7},
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill makes users, products and orders, which are equal in every test.
func (s *server) fill(t testing.TB, size demo.Size) {
	t.Helper()
	if err := demo.FillRandom(t.Context(), s.db, size, func(int, int) {}); err != nil {
		t.Fatal(err)
	}
	s.number(t)
	s.take()
}

// number gives positions to all events, as a sequencer does.
func (s *server) number(t testing.TB) {
	t.Helper()
	seq, err := s.db.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	if seq == nil {
		return // the writer has done it
	}
	defer seq.Close()
	lease, ok, err := seq.Acquire(t.Context(), "test", time.Minute)
	if err != nil || !ok {
		t.Fatalf("take the lease of the log: %v, %v", ok, err)
	}
	if _, _, err := seq.AssignPositions(t.Context(), lease, time.Minute, 1e6); err != nil {
		t.Fatal(err)
	}
	if err := seq.Release(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
}

// staff sees everything; it has no account.
var staff = &auth.Principal{UserID: "usr_00000000000000000000000000", Roles: []auth.Role{auth.Staff, auth.Admin}, Credential: auth.SessionCredential("ses_00000000000000000000000000")}

// run executes the query or mutation as the caller and returns the response as text.
func (s *server) run(t testing.TB, as *auth.Principal, query string, vars map[string]any) string {
	t.Helper()
	ctx := t.Context()
	if as != nil {
		ctx = auth.With(ctx, as)
	}
	op, refusal := s.exec.Prepare(ctx, executor.Request{Query: query, Variables: vars})
	if refusal != nil {
		t.Fatalf("%s\nis refused: %v", query, refusal.Errors)
	}
	resp, err := s.exec.Run(ctx, op)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Errors) == 0 {
		return string(resp.Data)
	}
	var errs []string // in the order in which fields happened to fail
	for _, e := range resp.Errors {
		errs = append(errs, e.Error())
	}
	slices.Sort(errs)
	return strings.Join(errs, "\n") + "\n" + string(resp.Data)
}

// ask is run for what must be answered without errors.
func (s *server) ask(t testing.TB, as *auth.Principal, query string, vars map[string]any) (data map[string]any) {
	t.Helper()
	text := s.run(t, as, query, vars)
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		t.Fatalf("%s\ngave %s", query, text)
	}
	return data
}

// count returns how many statements the answer took.
func (s *server) count(t testing.TB, as *auth.Principal, query string, vars map[string]any) int {
	t.Helper()
	s.take()
	s.ask(t, as, query, vars)
	asked := s.take()
	t.Logf("%d statements:\n%s", len(asked), strings.Join(asked, "\n"))
	return len(asked)
}
