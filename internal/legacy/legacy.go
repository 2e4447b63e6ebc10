// Package legacy owns the news of who still calls the routes of the old world:
// which route, which client, how often, last when. By it an operator knows when a
// route may be turned off.
//
// A call is counted in memory and stored with others a little later, so that it
// costs no write; a node that dies loses the counts of its last seconds. What is
// kept is bounded, however many names clients give themselves.
package legacy

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/page"
)

// Usage is how a client has used a route.
type Usage struct {
	Route       string // method and path, e.g. GET /users/{id}
	Client      string // id of an API key, else the name that the program gives itself, or one of Unnamed and Others
	Calls       int64
	FirstSeenAt time.Time
	LastSeenAt  time.Time
}

// The clients that stand for several.
const (
	Unnamed    = "(unnamed)"         // programs that say nothing of themselves
	Others     = "(all others)"      // clients for whom there is no room
	maxName    = 100                 // bytes of a client's name
	maxRows    = 10_000              // of usage that a store keeps before it counts clients as Others
	keepUnused = 90 * 24 * time.Hour // that usage stays without a call once there is no room
)

// ID names the route and client of the usage: a digest, since they are long.
func (u *Usage) ID() string {
	sum := sha256.Sum256([]byte(u.Route + "\x00" + u.Client))
	return base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
}

// Bounds says how much a store keeps.
type Bounds struct {
	Rows  int       // above which clients that it does not know count as Others
	Stale time.Time // usage whose last call was before may go when there are more
}

// Store keeps usage. It is declared here, where it is used.
type Store interface {
	// Add adds the calls to those that are there. Each element has another route or
	// client.
	Add(ctx context.Context, usage []Usage, b Bounds) error
	// List returns a page of usage, by route.
	List(ctx context.Context, args page.Args) (page.Page[*Usage], error)
	// Count returns how many elements all pages of List have.
	Count(ctx context.Context) (int, error)
}

// Service is what callers may know of usage.
type Service struct{ store Store }

// NewService returns a Service on the store.
func NewService(store Store) *Service { return &Service{store} }

// List returns a page of usage, by route. ADMIN only.
func (s *Service) List(ctx context.Context, args page.Args) (page.Page[*Usage], error) {
	if _, err := auth.RequireAdmin(ctx, auth.UsersRead); err != nil {
		return page.Page[*Usage]{}, err
	}
	return s.store.List(ctx, args)
}

// Count returns how many elements List shows on all its pages.
func (s *Service) Count(ctx context.Context) (int, error) {
	if _, err := auth.RequireAdmin(ctx, auth.UsersRead); err != nil {
		return 0, err
	}
	return s.store.Count(ctx)
}
