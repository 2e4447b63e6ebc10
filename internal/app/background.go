package app

import (
	"context"
	"fmt"
	"os"

	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/export"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
)

// Runner is a background task. Run works until ctx is cancelled, then returns nil.
type Runner interface {
	Run(ctx context.Context) error
}

// NewOwner returns the name under which this process owns leases: its node id
// and a random part, so that no later process on the node has the same.
func NewOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return lease.NewOwner(fmt.Sprintf("%s:%d", host, os.Getpid()))
}

// NewConsumers builds the consumers inside the server.
func NewConsumers(env Env, db *store.DB, hub *eventlog.Hub, sessions *session.Service, owner string) ([]Runner, error) {
	deps := consumer.Deps{Hub: hub, Leases: db.Leases(), DeadLetters: db.DeadLetters(), Owner: owner, Logger: env.Log}
	access, err := consumer.New("access", sessions.RevokeCredentials, deps, consumer.Config{Types: session.CredentialEventTypes()})
	return []Runner{access}, err
}

// NewRetention builds the removal of the oldest events.
func NewRetention(env Env, db *store.DB, owner string) (Runner, error) {
	return eventlog.NewCleaner(db.Events(), db.Leases(), owner, db.Clock(), env.Log, env.Config.Retention)
}

// NewExporters builds the exporter of each sink. None connects before it runs, so
// that a broker that is down does not keep the server from starting.
func NewExporters(env Env, db *store.DB, log *eventlog.Log, hub *eventlog.Hub, owner string) ([]Runner, error) {
	var exporters []Runner
	for _, cfg := range env.Config.Sinks {
		sink, err := newSink(env, cfg)
		if err != nil {
			return nil, fmt.Errorf("sink %s (BACKPLANE_SINKS): %w", cfg.Name, err)
		}
		x, err := export.NewExporter(cfg.Name, log, hub, db.Leases(), sink, env.Log, export.Config{Owner: owner, FromHead: cfg.FromHead})
		if err != nil {
			return nil, err
		}
		exporters = append(exporters, x)
	}
	return exporters, nil
}

func newSink(env Env, cfg config.Sink) (export.Sink, error) {
	switch url := string(cfg.URL); cfg.Kind {
	case config.RedisSink:
		return export.NewRedisSink(url, export.RedisSinkConfig{Source: cfg.Source, Stream: cfg.Stream, MaxLen: cfg.MaxLen})
	case config.RabbitMQSink:
		return export.NewRabbitMQSink(url, export.RabbitMQSinkConfig{Source: cfg.Source, Exchange: cfg.Exchange, Mandatory: cfg.Mandatory}, env.Log.With("sink", cfg.Name))
	case config.NATSSink:
		return export.NewNATSSink(url, export.NATSSinkConfig{Source: cfg.Source, Stream: cfg.Stream, Subject: cfg.Subject})
	}
	return nil, fmt.Errorf("unknown kind of sink %q", cfg.Kind)
}

// NewClock builds what keeps the database's time on this node right.
func NewClock(env Env, db *store.DB) Runner {
	return RunFunc(func(ctx context.Context) error { return db.Clock().Run(ctx, env.Log) })
}
