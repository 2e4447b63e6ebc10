// Command backplane is a GraphQL API server for users, orders and services.
//
// This file is the map of the system: what a server is made of, in build order,
// and what runs while it serves. The constructors are in internal/app, the
// command line in internal/cli.
package main

import (
	"context"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/cli"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/session"
)

func main() {
	ctx := cli.NotifyStop(context.Background())
	os.Exit(cli.Main(ctx, cli.Process{Args: os.Args[1:], Environ: os.Environ(), In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}, run))
}

// run builds a server and serves until ctx is cancelled and the last request is
// answered.
func run(ctx context.Context, env app.Env, opts cli.ServeOptions) error { //nolint:funlen,gocognit // the map of the system is one list
	app.RedirectRedisLog(env)
	app.LimitHeap(env)
	env = app.FitLimits(env)

	// Storage: SQLite or PostgreSQL, and the key that seals secrets in it.
	db, closeDatabase, err := app.OpenServedDatabase(ctx, env, opts.Migrate)
	if err != nil {
		return err
	}
	defer closeDatabase()
	sealer, err := app.OpenSecrets(ctx, env, db)
	if err != nil {
		return err
	}

	// Event log: sequencer, notifier between nodes, and the hub that readers on
	// this node subscribe to. The cache follows the hub first, so that no later
	// subscriber sees an event before the rows that it changed are invalid.
	feed, closeFeed, err := app.OpenFeed(env, db)
	if err != nil {
		return err
	}
	defer closeFeed() //nolint:errcheck // nothing is left to be lost
	health := app.NewHealth(db, feed)
	caches, err := app.OpenCache(env, db, sealer, feed.Hub)
	if err != nil {
		return err
	}
	defer caches.Close()
	securityLog, err := app.NewSecurityLog(env, db)
	if err != nil {
		return err
	}
	db = app.WithWriteHooks(db, caches, feed, securityLog)

	// Domains: users, orders and their payments, sessions, and the registry of services. Health checks
	// and calls of services all pass one guarded dialer, which must know the address
	// that this server listens on.
	sessions, err := app.NewSessions(env, db, sealer, feed.Hub, securityLog)
	if err != nil {
		return err
	}
	if err := sessions.Prepare(ctx); err != nil {
		return err
	}
	ln, err := app.Listen(ctx, env)
	if err != nil {
		return err
	}
	defer ln.Close()
	guard, err := app.NewGuard(env, ln.Addr().String())
	if err != nil {
		return err
	}
	owner := app.NewOwner()
	registry, err := app.NewRegistry(ctx, env, db, feed.Hub, sealer, guard, owner)
	if err != nil {
		return err
	}
	db = app.WithRevocations(db, func() *session.Service { return sessions })
	domains := app.NewDomains(env, db, caches, feed.Hub, sessions, registry)
	payments, err := app.NewPayments(env, db, domains, registry, guard, opts.Demo)
	if err != nil {
		return err
	}

	// Transports: one executor behind GraphQL over HTTP, WebSocket and event
	// streams and behind the legacy REST routes, all within one budget of memory; the
	// gateway to the services.
	memory := app.NewMemory(env)
	exec, err := app.NewExecutor(env, domains, sealer, memory, securityLog)
	if err != nil {
		return err
	}
	usage, err := app.NewLegacyUsage(env, db)
	if err != nil {
		return err
	}
	routes, err := app.NewREST(env, db, exec, usage, securityLog)
	if err != nil {
		return err
	}
	gateway, err := app.NewGateway(env, guard, registry, sessions, securityLog)
	if err != nil {
		return err
	}
	server, err := app.NewHTTP(env, exec, routes, gateway, sessions, domains.Registry, health, payments, memory, securityLog, usage)
	if err != nil {
		return err
	}

	// Background: the admin listener, and what reads the event log by name.
	eraser, purger := app.NewEraser(env, db), app.NewPurger(env, db)
	admin, err := app.OpenAdmin(ctx, env, server, health, caches, gateway, securityLog, eraser, purger, payments, usage, sessions)
	if err != nil {
		return err
	}
	consumers, err := app.NewConsumers(env, db, feed.Hub, sessions, owner)
	if err != nil {
		return err
	}
	exporters, err := app.NewExporters(env, db, domains.Log, feed.Hub, owner)
	if err != nil {
		return err
	}
	retention, err := app.NewRetention(env, db, owner)
	if err != nil {
		return err
	}

	// First run: accounts for an empty database, and the greeting.
	if err := app.Greet(ctx, env, ln.Addr(), db, domains, opts.Demo); err != nil {
		return err
	}
	if err := payments.PrepareConsumers(ctx, env, db, feed.Hub, domains, owner); err != nil {
		return err
	}

	// What runs. The first failure stops everything, and so does a signal, once load
	// balancers have had time to notice. The event log, the registry, the usage counter and the security log
	// outlast the server, for what its last requests did; the admin listener, to show them.
	ctx, cancel := app.AnnounceStop(ctx, env, server)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	lasting, stopLasting := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error {
		defer stopLasting()
		return server.Run(ctx, ln)
	})
	g.Go(func() error { return feed.Run(lasting) })
	g.Go(func() error { return registry.Run(lasting, env) })
	g.Go(func() error { return usage.Run(lasting) })
	g.Go(func() error { return securityLog.Run(lasting) })
	g.Go(func() error { return admin.Run(lasting) })
	background := []app.Runner{app.NewClock(env, db), app.NewLogRecord(db), health, caches, sessions, retention, purger, eraser}
	background = append(append(append(background, consumers...), payments.Runners()...), exporters...)
	if opts.Demo {
		background = append(background, demo.NewServices(registry.Registrar, env.Log))
	}
	for _, r := range background {
		g.Go(func() error { return r.Run(ctx) })
	}
	return g.Wait()
}
