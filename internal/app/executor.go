package app

import (
	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/secrets"
)

// NewExecutor builds the resolvers on the domains, and the executor that every
// transport runs operations with.
func NewExecutor(env Env, domains graph.Domains, hub *event.Hub, reg *Registry, box *secrets.Box) (*executor.Executor, error) {
	resolver := graph.NewResolver(domains, hub, reg.Desk)
	secret := box.Derive("idempotency")
	hooks := graph.NewHooks(resolver, secret[:])
	exec, err := executor.New(graph.NewSchema(resolver), executor.Config{
		Limits:               operationLimits(env.Config.Limits),
		Scalars:              graph.Scalars(),
		DisableIntrospection: !env.Config.Introspection,
		DisableSuggestions:   !env.Config.Introspection,
		AroundResponse:       hooks.AroundResponse,
		AroundRootField:      hooks.AroundRootField,
		AroundField:          hooks.AroundField,
	}, env.Log)
	if err != nil {
		return nil, err
	}
	resolver.Prepares(exec)
	return exec, nil
}

func operationLimits(l config.Limits) executor.Limits {
	return executor.Limits{
		Tokens: l.Tokens, Operations: l.Operations, Fields: l.Fields, ExpandedFields: l.ExpandedFields,
		Fragments: l.Fragments, FragmentDepth: l.FragmentDepth, Depth: l.Depth, Aliases: l.Aliases, RootFields: l.RootFields,
		Directives: l.Directives, Complexity: l.Cost, Errors: l.Errors, Response: l.ResponseBytes, Time: l.RequestTime,
	}
}
