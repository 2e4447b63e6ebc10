package app

import (
	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/securitylog"
)

// NewExecutor builds the executor of the schema over the domains, which every transport
// uses.
func NewExecutor(env Env, domains graph.Domains, sealer *secrets.Sealer, memory *membudget.Budget, events *securitylog.Recorder) (*executor.Executor, error) {
	secret := sealer.Derive("idempotency")
	return graph.NewExecutor(domains, secret[:], executor.Config{
		Limits:               env.Config.GraphQL,
		Memory:               memory,
		DisableIntrospection: !env.Config.Introspection,
		DisableSuggestions:   !env.Config.Introspection,
		OnError:              events.RecordError,
	}, env.Log)
}
