// Package legacy counts the calls of legacy REST routes: by route and client, with the
// times of the first and the last. An operator learns from it when a route may be turned
// off.
//
// A call is counted in memory and stored with others a few seconds later, so that it
// costs no write; a node that crashes loses the counts of its last seconds. The number of
// rows is bounded, however many names clients use.
package legacy

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/page"
)

// Usage is the calls of a route by one client.
type Usage struct {
	Route       string // method and path, e.g. GET /users/{id}
	Client      string // id of an API key, else the user agent of the program, or Unnamed or Others
	Calls       int64
	FirstSeenAt time.Time
	LastSeenAt  time.Time
}

// The names that stand for several clients.
const (
	Unnamed    = "(unnamed)"         // programs without a user agent
	Others     = "(all others)"      // clients beyond the limits
	maxName    = 100                 // bytes of a client's name
	maxRows    = 10_000              // of usage that a store keeps before it counts clients as Others
	keepUnused = 90 * 24 * time.Hour // that usage without a call is kept once the rows are at their limit
)

// ID names the route and client of the usage: a digest, since they are long.
func (u *Usage) ID() string {
	sum := sha256.Sum256([]byte(u.Route + "\x00" + u.Client))
	return base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16])
}

// Bounds limits the rows of a store.
type Bounds struct {
	Rows  int       // above which new clients count as Others
	Stale time.Time // usage whose last call was before may be removed when there are more
}

// DayUsage is the calls of a route on one day, of all clients. Calls of paths that are not served are those of UnknownPath.
type DayUsage struct {
	Day   string // e.g. 2026-11-30, UTC
	Route string
	Calls int64
}

// ID names the day and the route, in the order of time.
func (d *DayUsage) ID() string { return d.Day + " " + d.Route }

// MaxDays bounds the days that Days returns: those that a store keeps, of more routes than there are.
const MaxDays = 100_000

// ByDay sums up the calls of each route on a day, in the order of their ids. A call with a parameter that was
// passed over is one of its route already.
func ByDay(usage []Usage) (days []DayUsage) {
	sums := map[string]DayUsage{}
	for _, u := range usage {
		d := DayUsage{Day: u.LastSeenAt.UTC().Format(time.DateOnly), Route: u.Route, Calls: u.Calls}
		if strings.Contains(u.Route, "?") {
			continue
		}
		if madeUp(u.Route) {
			d.Route = UnknownPath
		}
		d.Calls += sums[d.ID()].Calls
		sums[d.ID()] = d
	}
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		days = append(days, sums[id])
	}
	return days
}

// Store keeps usage. It is declared here, where it is used.
type Store interface {
	// Add adds the calls to those stored, also by day, and removes days before the bound. No two elements have the same route and
	// client.
	Add(ctx context.Context, usage []Usage, b Bounds) error
	// List returns a page of usage, by route.
	List(ctx context.Context, args page.Args) (page.Page[*Usage], error)
	// Count returns how many elements all pages of List have.
	Count(ctx context.Context) (int, error)
}

// Service reads usage, for ADMIN.
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
