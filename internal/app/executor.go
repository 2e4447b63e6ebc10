package app

import (
	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/secrets"
)

// NewExecutor builds the executor of the schema over the domains, which every transport
// uses.
func NewExecutor(env Env, domains graph.Domains, sealer *secrets.Sealer, memory *membudget.Budget) (*executor.Executor, error) {
	secret := sealer.Derive("idempotency")
	return graph.NewExecutor(domains, secret[:], executor.Config{
		Limits:               env.Config.GraphQL,
		Memory:               memory,
		DisableIntrospection: !env.Config.Introspection,
		DisableSuggestions:   !env.Config.Introspection,
	}, env.Log)
}
