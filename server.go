// Command backplane is a GraphQL API server for users, orders and services.
//
// This file is the map of the system: what a server is made of, in the order in
// which it is built, and what runs while it serves. The other commands are in
// commands.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/rest"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/user"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "backplane:", err)
		os.Exit(1)
	}
}

// run runs the command that args name, serve if they name none, until it is done
// or ctx is cancelled.
func run(ctx context.Context, args, environ []string, out, errOut io.Writer) error {
	cmd, args, err := findCommand(args)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	work := cmd.prepare(flags)
	cfg, err := config.FromEnv(environ, flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err = fmt.Fprint(out, cmd.help(flags))
		return err
	case err != nil:
		return err
	case flags.NArg() > cmd.args:
		return fmt.Errorf("%s does not know what to do with %q; see backplane %s --help", cmd.name, flags.Arg(cmd.args), cmd.name)
	}
	return work(ctx, &app{cfg: cfg, flags: flags, out: out, log: newLog(cfg, errOut)})
}

// app is what every command is given.
type app struct {
	cfg   config.Config
	flags *flag.FlagSet
	out   io.Writer
	log   *slog.Logger
}

func newLog(cfg config.Config, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if cfg.LogFormat == config.LogJSON {
		h = slog.NewJSONHandler(w, opts)
	}
	return slog.New(requestlog.Handler(h))
}

// node is everything behind the transports, built by newNode.
type node struct {
	db       *store.DB
	cache    *cache.Cache
	box      *secrets.Box
	users    *user.Service
	products *order.Catalog
	orders   *order.Service
	sessions *session.Service
	log      *event.Log
	overseer *event.Overseer
	holder   string // what this process owns leases as
}

// newNode opens the database, with migrate also bringing it up to date, and
// builds the domains on it. The caller closes its database.
func newNode(ctx context.Context, a *app, migrate bool) (*node, error) {
	db, err := openDatabase(ctx, a.cfg, migrate)
	if err != nil {
		return nil, err
	}
	n, err := assemble(ctx, a, db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return n, nil
}

// openDatabase opens the database. An SQLite file is always brought up to date:
// nobody else uses it. PostgreSQL serves other nodes too, so there it is asked for.
func openDatabase(ctx context.Context, cfg config.Config, migrate bool) (*store.DB, error) {
	path, embedded := cfg.Database.SQLite()
	if embedded {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of the database: %w", err)
		}
	}
	return store.Open(ctx, store.Config{URL: string(cfg.Database), Migrate: migrate || embedded, AssignLegacyIDs: cfg.AssignLegacyID})
}

func assemble(ctx context.Context, a *app, db *store.DB) (*node, error) {
	if err := db.Ready(ctx); err != nil {
		return nil, err
	}
	box, err := openBox(ctx, a, db)
	if err != nil {
		return nil, err
	}
	sessions, err := session.NewService(db.Sessions(), box, time.Now, a.log, session.Config{NoRateLimit: !a.cfg.RateLimit})
	if err != nil {
		return nil, err
	}
	caches, err := openCache(a, event.NewLog(db.Events()))
	if err != nil {
		return nil, err
	}
	db.OnCommit(caches.Applied)
	log := event.NewLog(caches.Events(db.Events()))
	return &node{
		db: db, cache: caches, box: box, sessions: sessions,
		users:    user.NewService(caches.Users(db.Users()), now),
		products: order.NewCatalog(caches.Products(db.Products()), now),
		orders:   order.NewService(caches.Orders(db.Orders()), now),
		log:      log,
		holder:   event.Holder(nodeName()),
		overseer: event.NewOverseer(log, db.Offsets(), db.Letters(), now),
	}, nil
}

// now is the time as the databases keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// openBox unseals the secrets with the operator's key. On SQLite there is a key in
// a file beside the database until the operator gives one, which then takes over.
func openBox(ctx context.Context, a *app, db *store.DB) (*secrets.Box, error) {
	key, former := a.cfg.SecretKey, []secrets.Key(nil)
	if path, embedded := a.cfg.Database.SQLite(); embedded {
		file := filepath.Join(filepath.Dir(path), "secret.key")
		if _, err := os.Stat(file); err == nil || !key.IsSet() {
			kept, err := secrets.KeyFromFile(file)
			if err != nil {
				return nil, err
			}
			former = append(former, kept)
		}
		if !key.IsSet() {
			key = former[0]
		}
	}
	if !key.IsSet() {
		a.log.WarnContext(ctx, "BACKPLANE_SECRET_KEY is not set: whoever reads the database can read its secrets")
	}
	return secrets.OpenBox(ctx, db.Vault(), key, former...)
}

// handler builds the way of a request: executor, hooks, HTTP.
func (n *node) handler(a *app, hub *event.Hub, used *legacy.Counter, reg *services) (*httpd.Server, error) {
	resolver := graph.NewResolver(graph.Domains{
		Users: n.users, Products: n.products, Orders: n.orders, Sessions: n.sessions, Registry: reg.registrar, Log: n.log, Overseer: n.overseer, Legacy: legacy.NewService(n.db.LegacyUsage()),
	}, hub, reg.desk)
	secret := n.box.Derive("idempotency")
	hooks := graph.NewHooks(resolver, secret[:])
	exec, err := executor.New(graph.NewSchema(resolver), executor.Config{
		Limits:               operationLimits(a.cfg.Limits),
		Scalars:              graph.Scalars(),
		DisableIntrospection: !a.cfg.Introspection,
		DisableSuggestions:   !a.cfg.Introspection,
		AroundResponse:       hooks.AroundResponse,
		AroundRootField:      hooks.AroundRootField,
		AroundField:          hooks.AroundField,
	}, a.log)
	if err != nil {
		return nil, err
	}
	resolver.Prepares(exec)
	shim, err := rest.New(exec, restConfig(a.cfg, used), a.log)
	if err != nil {
		return nil, err
	}
	return httpd.New(httpConfig(a.cfg), exec, httpd.Deps{Auth: n.sessions, Tickets: tickets{n.sessions}, REST: shim, Gateway: reg.gateway, Ready: n.db.Ready, JWKS: n.sessions.JWKS}, a.log)
}

// serve runs a server until ctx is cancelled and the last request is answered.
func serve(ctx context.Context, a *app, demo, migrate bool) error {
	n, err := newNode(ctx, a, migrate)
	if err != nil {
		return err
	}
	defer n.db.Close()
	if err := n.sessions.Prepare(ctx); err != nil {
		return err
	}
	feed, closeFeed, err := n.openFeed(a)
	if err != nil {
		return err
	}
	defer closeFeed() //nolint:errcheck // nothing is left to be lost
	used, err := legacy.NewCounter(n.db.LegacyUsage(), now, a.log, legacy.CounterConfig{})
	if err != nil {
		return err
	}
	n.sessions.Follow(feed.Hub)
	reg, err := n.openRegistry(ctx, a, feed)
	if err != nil {
		return err
	}
	beside, err := n.beside(ctx, a, feed.Hub, reg)
	if err != nil {
		return err
	}
	if demo {
		beside = append(beside, func(ctx context.Context) error { return runEchoes(ctx, reg.registrar, a.log) })
	}
	server, err := n.handler(a, feed.Hub, used, reg)
	if err != nil {
		return err
	}
	n.sessions.OnRevoked(func(r session.Revocation) { server.Recheck(r.Concerns) })
	ln, err := reg.listen(ctx, a.cfg.Listen)
	if err != nil {
		return err
	}
	accounts, err := n.firstAccounts(ctx, a, demo)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	greet(a.out, ln.Addr(), accounts, demo)

	g, ctx := errgroup.WithContext(ctx)
	feedCtx, stopFeed := context.WithCancel(context.WithoutCancel(ctx)) // what the last requests change gets its place, too
	g.Go(func() error { return feed.Run(feedCtx) })
	g.Go(func() error { return reg.run(feedCtx, a) })
	g.Go(func() error { return used.Run(feedCtx) })
	g.Go(func() error {
		defer stopFeed()
		return server.Run(ctx, ln)
	})
	for _, work := range beside {
		g.Go(func() error { return work(ctx) })
	}
	return g.Wait()
}

// beside returns what runs beside the server until it stops: what keeps the node
// in order, and the readers of the log.
func (n *node) beside(ctx context.Context, a *app, hub *event.Hub, reg *services) ([]func(context.Context) error, error) {
	watch, err := n.openMonitor(ctx, a, reg)
	if err != nil {
		return nil, err
	}
	readers, err := n.readers(a, hub)
	if err != nil {
		return nil, err
	}
	exporters, err := n.openSinks(a, hub)
	if err != nil {
		return nil, err
	}
	all := []func(context.Context) error{n.cache.Run, n.sessions.Run, watch, func(ctx context.Context) error { return n.purge(ctx, a.log) }}
	for _, r := range readers {
		all = append(all, r.Run)
	}
	for _, x := range exporters {
		all = append(all, x.Run)
	}
	return all, nil
}
