package demo

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
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
)

// demoServices are the services of the demo with the weights of their instances,
// which live in this process, so that registry and balancing can be tried at once.
var demoServices = []struct {
	input   registry.ServiceInput
	weights []int
}{
	{registry.ServiceInput{
		Name: "echo", Description: "Answers with the request and the instance that served it", Tags: []string{"demo"}, Strategy: registry.RoundRobin,
		HealthCheck: &registry.HealthCheck{Path: "/healthz", Interval: 5 * time.Second, Timeout: time.Second},
	}, []int{1, 2, 3}},
	{registry.ServiceInput{
		Name: "mirror", Description: "The same with consistent hashing: equal keys go to the same instance", Tags: []string{"demo"}, Strategy: registry.ConsistentHash,
	}, []int{1, 1}},
}

// instanceTTL is the time to live of an instance's lease.
const instanceTTL = 10 * time.Second

// Services are the services of the demo.
type Services struct {
	registrar *registry.Registrar
	log       *slog.Logger
}

// NewServices returns Services that register nothing until Run is called.
func NewServices(r *registry.Registrar, log *slog.Logger) *Services { return &Services{r, log} }

// Run serves the services until ctx is cancelled, and then deregisters their
// instances.
func (s *Services) Run(ctx context.Context) error {
	system := auth.With(ctx, &auth.Principal{Roles: []auth.Role{auth.Admin}, Credential: auth.SystemCredential()}) // without a user, so that events have no actor
	g, system := errgroup.WithContext(system)
	for _, d := range demoServices {
		if _, err := s.registrar.Register(system, claim.None, d.input); err != nil {
			return fmt.Errorf("register the demo service %s: %w", d.input.Name, err)
		}
		for n, weight := range d.weights {
			in := registry.InstanceInput{InstanceID: fmt.Sprintf("%s-%d", d.input.Name, n+1), Weight: weight, TTL: instanceTTL, Metadata: map[string]string{"demo": "yes"}}
			g.Go(func() error { return s.serveInstance(system, d.input.Name, in) })
		}
	}
	return g.Wait()
}

// serveInstance serves one instance on a free port of this machine.
func (s *Services) serveInstance(ctx context.Context, service string, in registry.InstanceInput) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the demo instance %s: %w", in.InstanceID, err)
	}
	server := &http.Server{Handler: echoHandler(service, in.InstanceID), ReadHeaderTimeout: 5 * time.Second}
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
	g.Go(func() error { return s.keepRegistered(ctx, service, in) })
	return g.Wait()
}

func echoHandler(service, instance string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"service": service, "instance": instance, "method": r.Method, "path": r.URL.Path}) // the client may have disconnected
	})
}

// keepRegistered registers the instance and renews its lease until ctx is
// cancelled. A failed renewal is logged and retried; an instance that was removed
// registers again, and one that another process has replaced stops.
func (s *Services) keepRegistered(ctx context.Context, service string, in registry.InstanceInput) error {
	tick := time.NewTicker(instanceTTL / 3)
	defer tick.Stop()
	var incarnation int64
	for {
		i, err := s.renewOrRegister(ctx, service, in, incarnation)
		switch {
		case err == nil:
			incarnation = i.Incarnation
		case fault.Is(err, registry.CodeInstanceNotFound):
			incarnation = 0
		case fault.Is(err, registry.CodeStaleIncarnation):
			return nil
		case ctx.Err() == nil:
			s.log.WarnContext(ctx, "demo instance: lease renewal failed; it is retried", "instance", in.InstanceID, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.deregister(context.WithoutCancel(ctx), service, in, incarnation)
			return nil
		}
	}
}

func (s *Services) renewOrRegister(ctx context.Context, service string, in registry.InstanceInput, incarnation int64) (*registry.Instance, error) {
	if incarnation == 0 {
		return s.registrar.RegisterInstance(ctx, claim.None, service, in)
	}
	return s.registrar.Renew(ctx, service, in.InstanceID, incarnation, 0)
}

func (s *Services) deregister(ctx context.Context, service string, in registry.InstanceInput, incarnation int64) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := s.registrar.DeregisterInstance(ctx, claim.None, service, in.InstanceID, incarnation); err != nil {
		s.log.WarnContext(ctx, "demo instance: deregistration failed; it leaves when its lease expires", "instance", in.InstanceID, "error", err)
	}
}
