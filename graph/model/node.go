// Package model has the Go types of the schema that no domain has: inputs, payloads and
// connections. All but Node, Viewer, SignInAttempt, Edge and Connection are generated.
package model

import (
	"context"

	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Node is any object with an id. It is empty so that domain types need no
// method for the sake of the schema.
type Node any

// Viewer is the caller.
type Viewer struct{ UserID uid.User }

// ID returns an id that is the same for each call of the user. It differs from the id of the user:
// clients with a cache by id would take the two for one object.
func (v *Viewer) ID() string { return "viewer:" + string(v.UserID) }

// Edge is an item of a list with its cursor.
type Edge[T any] struct {
	Cursor string
	Node   T
}

// Connection is a page of a list as Relay shapes it.
type Connection[T any] struct {
	page  page.Page[T]
	count func(context.Context) (int, error)
}

// NewConnection wraps a page; count counts the whole list, if it is asked for.
func NewConnection[T any](p page.Page[T], count func(context.Context) (int, error)) *Connection[T] {
	return &Connection[T]{p, count}
}

// Edges returns the items with their cursors.
func (c *Connection[T]) Edges() []*Edge[T] {
	edges := make([]*Edge[T], len(c.page.Items))
	for i, item := range c.page.Items {
		edges[i] = &Edge[T]{c.page.Cursors[i], item}
	}
	return edges
}

// Nodes returns the items alone.
func (c *Connection[T]) Nodes() []T { return c.page.Items }

// PageInfo returns the position of the page in the list.
func (c *Connection[T]) PageInfo() *PageInfo {
	info := &PageInfo{HasNextPage: c.page.HasNext, HasPreviousPage: c.page.HasPrev}
	if n := len(c.page.Cursors); n > 0 {
		info.StartCursor, info.EndCursor = &c.page.Cursors[0], &c.page.Cursors[n-1]
	}
	return info
}

// TotalCount counts the whole list.
func (c *Connection[T]) TotalCount(ctx context.Context) (int, error) { return c.count(ctx) }

// The connections and edges of the schema.
type (
	UserConnection    = Connection[*user.User]
	UserEdge          = Edge[*user.User]
	ProductConnection = Connection[*order.Product]
	ProductEdge       = Edge[*order.Product]
	PaymentConnection = Connection[*payment.Payment]
	PaymentEdge       = Edge[*payment.Payment]
	OrderConnection   = Connection[*order.Order]
	OrderEdge         = Edge[*order.Order]
	EventConnection   = Connection[*event.Event]
	EventEdge         = Edge[*event.Event]

	ServiceConnection         = Connection[*registry.View]
	ServiceEdge               = Edge[*registry.View]
	ServiceInstanceConnection = Connection[*registry.Instance]
	ServiceInstanceEdge       = Edge[*registry.Instance]

	DeadLetterConnection = Connection[*consumer.DeadLetter]
	DeadLetterEdge       = Edge[*consumer.DeadLetter]

	LegacyUsageConnection = Connection[*legacy.Usage]
	LegacyUsageEdge       = Edge[*legacy.Usage]

	SecurityEventConnection = Connection[*security.Event]
	SecurityEventEdge       = Edge[*security.Event]
)
