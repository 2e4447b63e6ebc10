package app

import (
	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/secrets"
)

// NewExecutor builds the executor of the schema over the domains, which every transport
// uses.
func NewExecutor(env Env, domains graph.Domains, box *secrets.Box) (*executor.Executor, error) {
	secret := box.Derive("idempotency")
	return graph.NewExecutor(domains, secret[:], executor.Config{
		Limits:               operationLimits(env.Config.Limits),
		DisableIntrospection: !env.Config.Introspection,
		DisableSuggestions:   !env.Config.Introspection,
	}, env.Log)
}

func operationLimits(l config.Limits) executor.Limits {
	return executor.Limits{
		Tokens: l.Tokens, Operations: l.Operations, Fields: l.Fields, ExpandedFields: l.ExpandedFields,
		Fragments: l.Fragments, FragmentDepth: l.FragmentDepth, Depth: l.Depth, Aliases: l.Aliases, RootFields: l.RootFields,
		Directives: l.Directives, Complexity: l.Cost, Errors: l.Errors, Response: l.ResponseBytes, Time: l.RequestTime,
	}
}
