package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
)

// The demo has two services whose instances live in this process, so that the
// registry and its balancing can be tried at once: by service, the weights of its instances.
var echoes = []struct {
	in      registry.ServiceInput
	weights []int
}{
	{registry.ServiceInput{
		Name: "echo", Description: "Says what it was asked, and which instance says so", Tags: []string{"demo"}, Strategy: registry.RoundRobin,
		HealthCheck: &registry.HealthCheck{Path: "/healthz", Interval: 5 * time.Second, Timeout: time.Second},
	}, []int{1, 2, 3}},
	{registry.ServiceInput{
		Name: "mirror", Description: "The same again, for calls that belong together", Tags: []string{"demo"}, Strategy: registry.ConsistentHash,
	}, []int{1, 1}},
}

// echoTTL is the time to live of the demo's instances.
const echoTTL = 10 * time.Second

// runEchoes serves the demo's services until ctx is cancelled, and then takes
// their instances out of the registry.
func runEchoes(ctx context.Context, r *registry.Registrar, log *slog.Logger) error {
	system := auth.With(ctx, &auth.Principal{Roles: []auth.Role{auth.Admin}, Credential: auth.SystemCredential()}) // without a user, so that events have no actor
	g, system := errgroup.WithContext(system)
	for _, e := range echoes {
		if _, err := r.Register(system, e.in); err != nil {
			return fmt.Errorf("register the demo's service %s: %w", e.in.Name, err)
		}
		for n, weight := range e.weights {
			in := registry.InstanceInput{InstanceID: fmt.Sprintf("%s-%d", e.in.Name, n+1), Weight: weight, TTL: echoTTL, Metadata: map[string]string{"demo": "yes"}}
			g.Go(func() error { return runEcho(system, r, e.in.Name, in, log) })
		}
	}
	return g.Wait()
}

// runEcho serves one instance on a free port of this machine.
func runEcho(ctx context.Context, r *registry.Registrar, service string, in registry.InstanceInput, log *slog.Logger) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the demo's %s: %w", in.InstanceID, err)
	}
	server := &http.Server{Handler: echo(service, in.InstanceID), ReadHeaderTimeout: 5 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(ln); ctx.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	in.URL = "http://" + ln.Addr().String()
	g.Go(func() error { return keepRegistered(ctx, r, service, in, log) })
	return g.Wait()
}

func echo(service, instance string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"service": service, "instance": instance, "method": r.Method, "path": r.URL.Path}) // the caller may have left
	})
}

// keepRegistered registers the instance and renews its lease until ctx is
// cancelled. What fails is logged and tried again; an instance that was removed registers
// again, and one that another process has taken over stops.
func keepRegistered(ctx context.Context, r *registry.Registrar, service string, in registry.InstanceInput, log *slog.Logger) error {
	tick := time.NewTicker(echoTTL / 3)
	defer tick.Stop()
	var incarnation int64
	for {
		i, err := sayThatItLives(ctx, r, service, in, incarnation)
		switch {
		case err == nil:
			incarnation = i.Incarnation
		case fault.Is(err, fault.InstanceNotFound):
			incarnation = 0
		case fault.Is(err, fault.StaleIncarnation):
			return nil
		case ctx.Err() == nil:
			log.WarnContext(ctx, "the demo's instance could not say that it lives", "instance", in.InstanceID, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if _, err := r.DeregisterInstance(last, service, in.InstanceID, incarnation); err != nil {
				log.WarnContext(last, "the demo's instance could not be taken out", "instance", in.InstanceID, "error", err)
			}
			return nil
		}
	}
}

func sayThatItLives(ctx context.Context, r *registry.Registrar, service string, in registry.InstanceInput, incarnation int64) (*registry.Instance, error) {
	if incarnation == 0 {
		return r.RegisterInstance(ctx, service, in)
	}
	return r.Renew(ctx, service, in.InstanceID, incarnation, 0)
}
