// Package lease gives work that one node does at a time to an owner: by a lease in the
// database, with an epoch as fencing token and the offset of the work in the event log.
package lease

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// ErrLost means that a lease has another owner, has expired or was renewed by a later
// statement of the same owner: what was to be done under it was not done.
var ErrLost = errors.New("the lease is lost")

// Offset is how far a named reader of the log has come.
type Offset struct {
	Name      string
	Position  event.Position // it is done with everything up to here
	Owner     string         // who owned it last; empty if nobody ever did
	Epoch     int64          // raised by each change of owner
	ExpiresAt time.Time      // when the lease ends, or ended
	MovedAt   time.Time      // when Position last changed
}

// Lease is the right of one node to be a named reader, and the reader's place.
type Lease struct {
	Name     string
	Owner    string
	Epoch    int64
	Position event.Position
}

// Offsets keeps the places of named readers in the database: those of consumers
// and sinks, each of which one node runs at a time. Each method is one statement
// that commits by itself. On PostgreSQL time is the database's; an SQLite file
// has one server, whose time counts.
type Offsets interface {
	// Acquire takes the reader for ttl if nobody owns it, its lease has expired, or
	// the holder owns it already; ok is false if somebody else does. A reader that
	// is not known yet begins behind start.
	Acquire(ctx context.Context, name, holder string, start event.Position, ttl time.Duration) (t Lease, ok bool, err error)
	// Renew says that the reader is done with everything up to the position, and
	// renews its lease. A place never moves back. ErrLeaseLost says that the tenure
	// is over, and that nothing was stored.
	Renew(ctx context.Context, t Lease, done event.Position, ttl time.Duration) (Lease, error)
	// Release gives the reader up, if the tenure still holds.
	Release(ctx context.Context, t Lease) error
	// Delete removes a reader that nobody owns, and its place with it; forgotten is
	// false if there is none, or somebody owns it.
	Delete(ctx context.Context, name string) (forgotten bool, err error)
	// List returns all readers by name.
	List(ctx context.Context) ([]Offset, error)
}
