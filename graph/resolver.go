// Package graph owns the resolvers: each converts its arguments, calls one use
// case and wraps the result. Rules and permissions live in the domains, so that
// every transport obeys them.
//
// What all operations share is here too: loaders for each response, userErrors
// of mutations, and the claim of idempotency keys.
package graph

import (
	"github.com/99designs/gqlgen/graphql"

	"backplane/graph/generated"
	"backplane/internal/order"
	"backplane/internal/session"
	"backplane/internal/user"
)

// Resolver holds the use cases that resolvers call.
type Resolver struct {
	users    *user.Service
	products *order.Catalog
	orders   *order.Service
	sessions *session.Service
}

// NewResolver returns a Resolver of the use cases.
func NewResolver(users *user.Service, products *order.Catalog, orders *order.Service, sessions *session.Service) *Resolver {
	return &Resolver{users, products, orders, sessions}
}

// NewSchema returns the one executable schema that every transport runs.
func NewSchema(r *Resolver) graphql.ExecutableSchema {
	return generated.NewExecutableSchema(generated.Config{Resolvers: r})
}
