package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/store"
)

// services is the node's part in the registry: what it knows of it, what callers
// do with it, how instances are picked, and who judges them.
type services struct {
	directory *registry.Directory
	registrar *registry.Registrar
	pool      *balance.Pool
	desk      *registry.Desk
	keeper    *registry.Keeper
	guard     *gateway.Guard
	gateway   *gateway.Gateway
}

// openRegistry builds the parts on the node's feed, and loads the registry.
func (n *node) openRegistry(ctx context.Context, a *app, feed *event.Feed) (s *services, err error) {
	s = &services{}
	store := n.db.Registry()
	s.directory = registry.NewDirectory(store, feed.Hub, now, a.log)
	feed.Hub.OnDeliver(s.directory.Deliver)
	if err := s.directory.Load(ctx); err != nil {
		return nil, err
	}
	s.registrar = registry.NewRegistrar(store, s.directory, now)
	if s.pool, err = balance.NewPool(time.Now, balance.Config{}); err != nil {
		return nil, err
	}
	var exchange registry.Exchange
	if n.db.Dialect() == "postgres" { // an SQLite file has one node
		exchange = store
	}
	secret := n.box.Derive("pick")
	s.desk = registry.NewDesk(s.directory, s.pool, exchange, secret[:], now, a.log, registry.DeskConfig{})
	if s.guard, err = openGuard(a.cfg); err != nil {
		return nil, err
	}
	if s.gateway, err = gateway.New(gateway.Deps{Guard: s.guard, Directory: s.directory, Pool: s.pool, Tokens: n.sessions.ServiceToken}, a.log, gatewayConfig(a.cfg.Limits)); err != nil {
		return nil, err
	}
	head := func() event.Position { return feed.Hub.Head().Position }
	s.keeper, err = registry.NewKeeper(store, n.db.Offsets(), head, s.directory, gateway.NewProber(s.guard), now, a.log, registry.KeeperConfig{Holder: n.holder})
	return s, err
}

// openGuard returns the one way out of the server: never to the database, to Redis
// or to the operator's port, and to private networks as the operator says.
func openGuard(cfg config.Config) (*gateway.Guard, error) {
	_, embedded := cfg.Database.SQLite()
	g := gateway.NewGuard(gateway.Policy{AllPrivate: embedded && cfg.OutboundNetworks == nil, Private: cfg.OutboundNetworks}, nil)
	refused, err := neverCalled(cfg)
	if err != nil {
		return nil, err
	}
	return g, g.Deny(refused...)
}

func gatewayConfig(l config.Limits) gateway.Config {
	return gateway.Config{
		ConnectTime: l.GatewayConnectTime, FirstByteTime: l.GatewayFirstByteTime, IdleTime: l.GatewayIdleTime, TotalTime: l.GatewayTotalTime,
		StreamTime: l.GatewayStreamTime, BodyTime: l.BodyTime, BodyBytes: int64(l.GatewayBodyBytes), Calls: l.GatewayCalls, CallerCalls: l.GatewayUserCalls,
	}
}

// neverCalled are the places of our own that no service may be at.
func neverCalled(cfg config.Config) (all []string, err error) {
	if _, embedded := cfg.Database.SQLite(); !embedded {
		if all, err = store.Addresses(string(cfg.Database)); err != nil {
			return nil, err
		}
	}
	if cfg.AdminListen != config.Off {
		all = append(all, cfg.AdminListen)
	}
	if cfg.RedisURL != "" {
		address, err := notify.RedisAddress(string(cfg.RedisURL))
		if err != nil {
			return nil, err
		}
		all = append(all, address)
	}
	return all, nil
}

// run runs the parts until ctx is cancelled.
func (s *services) run(ctx context.Context, a *app) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.directory.Run(ctx) })
	g.Go(func() error { return s.registrar.Run(ctx, a.log) })
	g.Go(func() error { return s.desk.Run(ctx) })
	g.Go(func() error { return s.keeper.Run(ctx) })
	return g.Wait()
}

// listen listens where the server is to serve, and keeps calls of our own away
// from there.
func (s *services) listen(ctx context.Context, address string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s (BACKPLANE_LISTEN): %w", address, err)
	}
	return ln, s.guard.Deny(ln.Addr().String())
}
