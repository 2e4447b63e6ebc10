package app

import (
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/admin"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/payment/callback"
	"github.com/backplane-dev/backplane/internal/payment/provider"
	"github.com/backplane-dev/backplane/internal/store"
)

// Payments is the node's part in the payments of orders: two consumers of the event log, and the worker that calls the provider.
type Payments struct {
	Worker    *payment.Worker    // nil if payments are off
	Callbacks *callback.Receiver // nil if there are no secrets to verify them by
	runners   []Runner
}

// NewPayments builds the worker; it builds nothing if the operator has turned payments off. In the demo a sandbox in the process answers while no
// service is marked as payment provider.
func NewPayments(env Env, db *store.DB, domains graph.Domains, reg *Registry, guard *gateway.Guard, demo bool) (*Payments, error) {
	cfg := env.Config.Payments
	if cfg.Service == payment.Off {
		return &Payments{}, nil
	}
	client, err := provider.NewClient(provider.Deps{Guard: guard, Directory: reg.Directory, Pool: reg.Pool}, provider.Config{Service: cfg.Service, Timeout: cfg.Timeout, CallbackURL: callbackURL(env)})
	if err != nil {
		return nil, err
	}
	p := &Payments{}
	if secrets := env.Config.CallbackSecrets; len(secrets) > 0 {
		if p.Callbacks, err = callback.NewReceiver(secrets, db.Clock().Now, domains.Payments.ReceiveCallback); err != nil {
			return nil, err
		}
	}
	var called payment.Provider = client
	if demo {
		sandbox := provider.NewSandbox(db.Clock().Now, env.Log)
		called = &provider.Fallback{Registered: client, Sandbox: sandbox}
		p.runners = append(p.runners, RunFunc(func(ctx context.Context) error { return sandbox.Run(ctx, domains.Payments.ReceiveCallback) }))
	}
	writers := 4
	if db.Dialect() != "postgres" {
		writers = 1
	}
	// The client itself ends calls in time; the worker's own limit is for one that does not.
	p.Worker = payment.NewWorker(domains.Payments, called, env.Log, payment.WorkerConfig{Timeout: cfg.Timeout + cfg.Timeout/2, Writers: writers, Elapsed: stopwatch})
	p.runners = append(p.runners, p.Worker)
	return p, nil
}

// callbackURL returns where payment services send outcomes that come later, empty if they are to be asked for.
func callbackURL(env Env) string {
	if env.Config.PublicURL == "" || len(env.Config.CallbackSecrets) == 0 {
		return ""
	}
	return env.Config.PublicURL + httpd.CallbackPath
}

// PrepareConsumers builds the consumers, before the node serves its first request. In a database in which no node has run them, orders that
// were placed until now get no payment: those of a release before payments, and those of the demo.
func (p *Payments) PrepareConsumers(ctx context.Context, env Env, db *store.DB, hub *eventlog.Hub, domains graph.Domains, owner string) error {
	if p.Worker == nil {
		return nil
	}
	state, err := hub.Log().State(ctx)
	if err != nil {
		return err
	}
	deps := consumer.Deps{Hub: hub, Leases: db.Leases(), DeadLetters: db.DeadLetters(), Owner: owner, Logger: env.Log}
	parallel := 4
	if db.Dialect() != "postgres" {
		parallel = 1 // an SQLite file has one writer, which callers that place orders need
	}
	ofOrders, err := consumer.New("payments", domains.Payments.HandleOrderEvent, deps, consumer.Config{Types: payment.OrderEventTypes(), Start: state.Head, Parallel: parallel})
	if err != nil {
		return err
	}
	ofPayments, err := consumer.New("order_payments", domains.Orders.HandlePaymentEvent, deps, consumer.Config{Types: order.PaymentEventTypes(), Start: state.Head, Parallel: parallel})
	p.runners = append(p.runners, ofOrders, ofPayments)
	return err
}

// stopwatch measures a call by the clock of the machine.
func stopwatch() func() time.Duration {
	begun := time.Now()
	return func() time.Duration { return time.Since(begun) }
}

// Runners returns what runs.
func (p *Payments) Runners() []Runner { return p.runners }

// register registers the metrics of payments.
func (p *Payments) register(s *admin.Server) {
	if p.Worker == nil {
		return
	}
	for name, value := range map[string]func(payment.Stats) float64{
		`backplane_payments_open{status="pending"}`:           func(s payment.Stats) float64 { return float64(s.Backlog.Pending) },
		`backplane_payments_open{status="refunding"}`:         func(s payment.Stats) float64 { return float64(s.Backlog.Refunding) },
		`backplane_payments_open{status="unsettled"}`:         func(s payment.Stats) float64 { return float64(s.Backlog.Unsettled) },
		`backplane_payments_waiting_seconds`:                  func(s payment.Stats) float64 { return s.Backlog.Waiting.Seconds() },
		`backplane_payments_oldest_pending_seconds`:           func(s payment.Stats) float64 { return s.Backlog.Oldest.Seconds() },
		`backplane_payment_calls_total{outcome="answered"}`:   func(s payment.Stats) float64 { return float64(s.Answered) },
		`backplane_payment_calls_total{outcome="unanswered"}`: func(s payment.Stats) float64 { return float64(s.Unanswered) },
		`backplane_payments_expired_total`:                    func(s payment.Stats) float64 { return float64(s.Expired) },
		`backplane_payment_callbacks_applied_total`:           func(s payment.Stats) float64 { return float64(s.Callbacks) },
		`backplane_payment_callbacks_pending`:                 func(s payment.Stats) float64 { return float64(s.Backlog.Callbacks) },
	} {
		s.Register(name, func() float64 { return value(p.Worker.Stats()) })
	}
	for outcome, value := range map[string]func(callback.Stats) uint64{
		"accepted": func(s callback.Stats) uint64 { return s.Accepted },
		"refused":  func(s callback.Stats) uint64 { return s.Refused },
		"invalid":  func(s callback.Stats) uint64 { return s.Invalid },
		"failed":   func(s callback.Stats) uint64 { return s.Failed },
	} {
		s.Register(fmt.Sprintf("backplane_payment_callbacks_total{outcome=%q}", outcome), func() float64 { return float64(value(p.Callbacks.Stats())) })
	}
	s.Register("backplane_payment_provider_available", func() float64 { return boolGauge(p.Worker.Available()) })
}
