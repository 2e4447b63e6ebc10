package app

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/store"
)

// Registry is the node's part in the service registry.
type Registry struct {
	Directory  *registry.Directory // in memory, kept up to date by the hub
	Registrar  *registry.Registrar // the use cases of services and instances
	Pool       *balance.Pool       // picks instances
	Picks      *registry.PickTracker
	reconciler *registry.Reconciler // the reconcile loop, on the node that holds its lease
}

// NewRegistry builds the parts on the node's hub, and loads the directory.
func NewRegistry(ctx context.Context, env Env, db *store.DB, hub *eventlog.Hub, sealer *secrets.Sealer, guard *gateway.Guard, owner string) (*Registry, error) {
	stored := db.Registry()
	r := &Registry{Directory: registry.NewDirectory(stored, hub, db.Clock().Now, env.Log)}
	hub.OnDeliver(r.Directory.ApplyEvents)
	if err := r.Directory.Load(ctx); err != nil {
		return nil, err
	}
	var err error
	r.Registrar = registry.NewRegistrar(stored, r.Directory, db.Clock().Now)
	if r.Pool, err = balance.NewPool(time.Now, balance.Config{}); err != nil {
		return nil, err
	}
	var exchange registry.PeerStore
	if db.Dialect() == "postgres" { // an SQLite file has one node
		exchange = stored
	}
	secret := sealer.Derive("pick")
	r.Picks = registry.NewPickTracker(r.Directory, r.Pool, exchange, secret[:], db.Clock().Now, env.Log, registry.PickTrackerConfig{})
	head := func() event.Position { return hub.Head().Position }
	r.reconciler, err = registry.NewReconciler(stored, db.Leases(), head, r.Directory, gateway.NewProber(guard), db.Clock().Now, env.Log, registry.ReconcilerConfig{Owner: owner, CheckSkew: db.Clock().CheckSkew})
	return r, err
}

// Run runs the parts until ctx is cancelled.
func (r *Registry) Run(ctx context.Context, env Env) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.Directory.Run(ctx) })
	g.Go(func() error { return r.Registrar.Run(ctx, env.Log) })
	g.Go(func() error { return r.Picks.Run(ctx) })
	g.Go(func() error { return r.reconciler.Run(ctx) })
	return g.Wait()
}
