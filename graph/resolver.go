// Package graph owns the resolvers: each converts its arguments, calls one use
// case and wraps the result. Rules and permissions live in the domains, so that
// every transport obeys them.
//
// What all operations share is here too: loaders for each response, userErrors
// of mutations, and the claim of idempotency keys.
package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/graph/generated"
	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/graph/scalar"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/user"
)

// Resolver holds the use cases that resolvers call.
type Resolver struct {
	users    *user.Service
	products *order.Catalog
	orders   *order.Service
	sessions *session.Service
	registry *registry.Registrar
	log      *event.Log
	overseer *event.Overseer
	hub      *event.Hub
	desk     *registry.Desk
	legacy   *legacy.Service
	prepare  func(context.Context, executor.Request) (*executor.Operation, *executor.Refusal)
}

// Domains are the use cases behind the schema; all of them are needed.
type Domains = loader.Reads

// NewResolver returns a Resolver of the use cases, whose subscriptions follow
// the hub, and whose picks are made at the desk.
func NewResolver(d Domains, hub *event.Hub, desk *registry.Desk) *Resolver {
	return &Resolver{
		users: d.Users, products: d.Products, orders: d.Orders, sessions: d.Sessions, registry: d.Registry, log: d.Log, overseer: d.Overseer, hub: hub, desk: desk, legacy: d.Legacy,
	}
}

// Prepares tells the resolver what prepares operations of its schema, which can
// be built only after it. Call it before anything is served.
func (r *Resolver) Prepares(x *executor.Executor) { r.prepare = x.Prepare }

// NewSchema returns the one executable schema that every transport runs.
func NewSchema(r *Resolver) graphql.ExecutableSchema {
	return generated.NewExecutableSchema(generated.Config{Resolvers: r})
}

// Scalars are the checks of the schema's own scalars, as an executor wants them.
func Scalars() map[string]func(any) error {
	return map[string]func(any) error{
		"DateTime":     check(scalar.UnmarshalDateTime),
		"Decimal":      check(scalar.UnmarshalDecimal),
		"CurrencyCode": check(scalar.UnmarshalCurrencyCode),
		"Cursor":       check(scalar.UnmarshalCursor),
		"Duration":     check(scalar.UnmarshalDuration),
		"StringMap":    check(scalar.UnmarshalStringMap),
		"Long":         check(scalar.UnmarshalLong),
	}
}

func check[T any](read func(any) (T, error)) func(any) error {
	return func(v any) error {
		_, err := read(v)
		return err
	}
}
