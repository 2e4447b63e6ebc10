// Command payment-service is an example of a payment provider for Backplane: copy it to begin your own.
//
// It speaks the provider protocol (docs/payment-provider.openapi.yaml) and moves no money. Several
// instances share one SQLite file, as those of a real one share a database: whichever gets a call knows
// all payments, so a repeated call charges once.
//
// An instance registers with Backplane, is checked by it, and on SIGTERM drains before it stops. Flags
// make it slow, failing, late or dying, to see that orders reach their end all the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/client"
)

// options are what the flags say.
type options struct {
	registry, service, instance, listen, url, database string
	apiKey                                             string // of Backplane; needs the scope service:NAME
	secret                                             []byte // that callbacks are signed with; nil if there is none
	slow, late                                         time.Duration
	fail, dieAfter                                     int
}

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	opts, err := parseOptions(os.Args[1:], os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "payment-service:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, opts, log.With("instance", opts.instance)); err != nil {
		log.Error("stopped", "error", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func parseOptions(args []string, getenv func(string) string) (o options, err error) {
	f := flag.NewFlagSet("payment-service", flag.ContinueOnError)
	f.StringVar(&o.registry, "registry", "http://127.0.0.1:8080", "comma-separated `URLs` of Backplane's nodes")
	f.StringVar(&o.service, "service", "payment-service", "`name` of the service to register as")
	f.StringVar(&o.instance, "instance", "payment-1", "`id` of this instance: the same after a restart, and no other process's")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`address` to listen on")
	f.StringVar(&o.url, "url", "", "`URL` that Backplane calls this instance by (default: the address that it listens on)")
	f.StringVar(&o.database, "database", "payments.db", "SQLite `file`, shared by all instances")
	f.DurationVar(&o.slow, "slow", 0, "wait so long before each answer")
	f.DurationVar(&o.late, "late", 0, "answer PENDING, and tell the outcome by a callback so much later")
	f.IntVar(&o.fail, "fail", 0, "answer each `n`-th POST with 503, before anything is stored")
	f.IntVar(&o.dieAfter, "die-after", 0, "die once the `n`-th payment is stored, before it is answered")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.apiKey = getenv("BACKPLANE_API_KEY"); o.apiKey == "" {
		return o, errors.New("BACKPLANE_API_KEY must be an API key with the scope service:" + o.service)
	}
	if text := getenv("PAYMENT_CALLBACK_SECRET"); text != "" {
		if o.secret, err = parseSecret(text); err != nil {
			return o, err
		}
	} else if o.late > 0 {
		return o, errors.New("-late needs PAYMENT_CALLBACK_SECRET, one of Backplane's BACKPLANE_PAYMENT_CALLBACK_SECRETS")
	}
	return o, nil
}

// run serves until ctx is cancelled. The order of its end matters: the health check fails and the registry
// sends no new calls before the listener is closed.
func run(ctx context.Context, o options, log *slog.Logger) error {
	payments, err := openStore(ctx, o.database)
	if err != nil {
		return err
	}
	defer payments.close()
	health, err := client.NewHealth(client.HealthConfig{Checks: map[string]client.Check{"database": payments.ping}})
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	if o.url == "" {
		o.url = "http://" + ln.Addr().String()
	}
	server := &http.Server{Handler: newHandler(payments, o, health, log), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	go sendCallbacks(background, payments, o.secret, log)

	registry, err := client.New(client.Config{URLs: strings.Split(o.registry, ","), Token: o.apiKey, Logger: log})
	if err != nil {
		return err
	}
	defer registry.Close()
	me, err := register(ctx, registry, o)
	if err != nil {
		return err
	}
	log.Info("serving", "url", o.url)

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("draining")
	health.SetDraining(true)
	end, cancel := context.WithTimeout(background, 10*time.Second)
	defer cancel()
	if err := me.Close(end); err != nil {
		log.Warn("not deregistered: the instance leaves when its lease expires", "error", err)
	}
	return server.Shutdown(end)
}

// register defines the service, as each of its instances does, and registers this one. While Backplane
// cannot be reached it tries on.
func register(ctx context.Context, registry *client.Client, o options) (*client.Registered, error) {
	define := client.Service{
		Name: o.service, Description: "Example of a payment provider: no money moves", Strategy: client.LeastConnections,
		HealthCheck: &client.HealthCheck{Path: "/healthz", Interval: 2 * time.Second, Timeout: time.Second},
	}
	for {
		err := registry.DefineService(ctx, define)
		if err == nil {
			break
		}
		if client.Code(err) != "" || ctx.Err() != nil { // Backplane has answered: the key or the name is wrong
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	return registry.Register(ctx, client.Registration{Service: o.service, Instance: o.instance, URL: o.url, TTL: 5 * time.Second})
}
