package app

import (
	"time"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/writelimit"
)

// NewCursors returns the codec of the cursors that clients get, equal on all nodes.
func NewCursors(sealer *secrets.Sealer) *cursor.Codec {
	return cursor.NewCodec(sealer.Derive("cursor"))
}

// NewExecutor builds the executor of the schema over the domains, which every transport
// uses.
func NewExecutor(env Env, domains graph.Domains, sealer *secrets.Sealer, memory *membudget.Budget, events *securitylog.Recorder) (*executor.Executor, error) {
	secret := sealer.Derive("idempotency")
	limits := env.Config.Writes
	limits.Disabled = !env.Config.RateLimit
	writes, err := writelimit.New(limits, time.Now)
	if err != nil {
		return nil, err
	}
	return graph.NewExecutor(domains, secret[:], executor.Config{
		Planned:              env.Config.PlannedExecutor,
		Limits:               env.Config.GraphQL,
		Memory:               memory,
		Writes:               writes,
		Cursors:              NewCursors(sealer),
		DisableIntrospection: !env.Config.Introspection,
		DisableSuggestions:   !env.Config.Introspection,
		OnError:              events.RecordError,
	}, env.Log)
}
