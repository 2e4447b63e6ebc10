package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/rest"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
)

// Listen opens the API's listener. The caller closes it.
func Listen(ctx context.Context, env Env) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", env.Config.Listen)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s (BACKPLANE_LISTEN): %s: %w", env.Config.Listen, httpd.DescribeListener(ctx, env.Config.Listen), err)
		}
		return nil, fmt.Errorf("listen on %s (BACKPLANE_LISTEN): %w", env.Config.Listen, err)
	}
	if addr, ok := ln.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() && len(env.Config.HTTP.TrustedProxies) == 0 {
		env.Log.WarnContext(ctx, "passwords and tokens pass over plain HTTP on a public address: terminate TLS in a proxy, and name it in BACKPLANE_TRUSTED_PROXIES", "address", addr.String())
	}
	return ln, nil
}

// NewREST builds the legacy REST routes, which are stored operations of the executor.
func NewREST(env Env, db *store.DB, exec *executor.Executor, usage *legacy.Counter, events *securitylog.Recorder) (*rest.Shim, error) {
	routes, err := rest.New(exec, rest.Config{
		Version: env.Version, Folder: env.Config.RESTOperations, Reserved: httpd.Reserved(), Deprecated: env.Config.RESTDeprecated, OnCall: usage.CountCall, OnError: events.RecordError, IsKeyUsed: db.IsKeyUsed,
		PageSize: env.Config.RESTPageSize, IgnoreUnknown: env.Config.RESTIgnore, OnIgnored: usage.CountIgnored, OnUnknown: usage.CountUnknown,
	}, env.Log)
	if standard, e := config.FromEnv(nil, nil); err != nil && e == nil && env.Config.GraphQL != standard.GraphQL {
		return nil, fmt.Errorf("%w\nthe settings BACKPLANE_LIMIT_… of a GraphQL operation hold for the routes' own operations too: they are too low", err)
	}
	return routes, err
}

// LegacyOperations returns the names of the GraphQL operations behind each legacy REST route, such as GET /users.
func LegacyOperations(env Env) (map[string]string, error) {
	exec, err := executor.New(graph.NewSchema(&graph.Resolver{}), executor.Config{Scalars: graph.Scalars(), Limits: env.Config.GraphQL}, env.Log) // to prepare, not to run
	if err != nil {
		return nil, err
	}
	routes, err := rest.New(exec, rest.Config{Folder: env.Config.RESTOperations, Reserved: httpd.Reserved()}, env.Log)
	if err != nil {
		return nil, err
	}
	return routes.Operations(), nil
}

var _ httpd.Expirer = (*session.Service)(nil) // streams then close with the reason that the token has expired

// NewHTTP builds the HTTP server over the transports.
func NewHTTP(env Env, exec *executor.Executor, routes *rest.Shim, gate *gateway.Gateway, sessions *session.Service, reg *registry.Registrar, health *Health, payments *Payments, memory *membudget.Budget, events *securitylog.Recorder, usage *legacy.Counter) (*httpd.Server, error) {
	cfg := env.Config.HTTP
	cfg.AllowedHosts = append(slices.Clone(cfg.AllowedHosts), env.Config.ListenHost())
	if host := env.Config.PublicHost(); host != "" {
		cfg.AllowedHosts = append(cfg.AllowedHosts, host)
	}
	var schema []byte
	if env.Config.Introspection {
		schema = graph.SDL
	}
	deps := httpd.Deps{
		Auth: sessions, Tickets: tickets{sessions}, REST: routes, Gateway: gate, Ready: health.Ready, Schema: schema, JWKS: sessions.JWKS, Memory: memory,
		Targets: listTargets(reg), OnError: events.RecordError, OnUnknown: usage.CountUnknown,
	}
	if payments.Callbacks != nil {
		deps.Callback = payments.Callbacks.Receive
	}
	server, err := httpd.New(cfg, exec, deps, env.Log)
	if err != nil {
		return nil, err
	}
	// A cycle: the server authenticates by the sessions, whose revocations end its streams.
	sessions.OnRevoked(server.Recheck)
	return server, nil
}

// listTargets returns what lists the instances of a service for the service discovery.
func listTargets(reg *registry.Registrar) func(context.Context, string) ([]httpd.Target, error) {
	return func(ctx context.Context, service string) ([]httpd.Target, error) {
		instances, err := reg.Targets(ctx, service)
		if err != nil {
			return nil, err
		}
		targets := make([]httpd.Target, len(instances))
		for n, i := range instances {
			targets[n] = httpd.Target{InstanceID: i.InstanceID, URL: i.URL, Status: string(i.Status), Metadata: i.Metadata}
		}
		return targets, nil
	}
}

// NewLegacyUsage builds the counter of calls of legacy REST routes.
func NewLegacyUsage(env Env, db *store.DB) (*legacy.Counter, error) {
	return legacy.NewCounter(db.LegacyUsage(), db.Clock().Now, env.Log, legacy.CounterConfig{CheckAge: db.Clock().CheckAge})
}

// Why a server stops: the causes of its context.
var (
	ErrInterrupted = errors.New("interrupted (SIGINT)")
	ErrTerminated  = errors.New("terminated (SIGTERM)")
)

// AnnounceStop returns a context that ends later than ctx: when ctx ends, the server says on
// /readyz that it stops, and serves on for the stop delay, so that load balancers notice before
// it refuses connections. An operator at a terminal (ErrInterrupted) does not wait.
func AnnounceStop(ctx context.Context, env Env, server *httpd.Server) (context.Context, context.CancelFunc) {
	delayed, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		server.AnnounceStop()
		delay := env.Config.StopDelay
		if errors.Is(context.Cause(ctx), ErrInterrupted) {
			delay = 0
		}
		env.Log.InfoContext(ctx, "server stops: not ready from now on, requests are served until the delay is over", "cause", context.Cause(ctx), "delay", delay)
		time.AfterFunc(delay, cancel)
	})
	return delayed, cancel
}
