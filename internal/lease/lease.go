// Package lease elects one owner at a time for a named task, such as a consumer or a sink,
// by a lease in the database. A lease has an owner, an epoch and an expiry, and stores
// the task's offset in the event log.
//
// Invariants: a lease has at most one owner until it expires; each change of owner raises the
// epoch, which is the fencing token of writes under the lease; an offset never moves back.
// The caller renews the lease in time and stops on ErrLost.
package lease

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// ErrLost means that a lease has another owner or epoch, or has expired. The
// statement stored nothing.
var ErrLost = errors.New("the lease is lost")

// Offset is the stored row of a reader of the log: its position and its lease.
type Offset struct {
	Name      string
	Position  event.Position // every event up to here is done
	Owner     string         // last owner; empty if it was never acquired
	Epoch     int64          // raised by each change of owner
	ExpiresAt time.Time      // when the lease ends, or ended
	MovedAt   time.Time      // when Position last changed
}

// Lease is the exclusive right of one owner to run a reader, and the reader's offset.
type Lease struct {
	Name     string
	Owner    string
	Epoch    int64
	Position event.Position
}

// Store keeps the leases and offsets of readers, such as consumers and sinks, in the
// database. Each method is one statement that commits by itself. The time is that of
// PostgreSQL, or of the server process that owns an SQLite file.
type Store interface {
	// Acquire acquires the lease for ttl if it is free or expired, or belongs to the owner
	// already; ok is false if it has another owner. The offset of a new reader is
	// start.
	Acquire(ctx context.Context, name, owner string, start event.Position, ttl time.Duration) (t Lease, ok bool, err error)
	// Renew renews the lease for ttl and moves the offset to done, never back. ErrLost
	// means that nothing was stored.
	Renew(ctx context.Context, t Lease, done event.Position, ttl time.Duration) (Lease, error)
	// Release ends the lease, unless it has another owner or epoch.
	Release(ctx context.Context, t Lease) error
	// Delete removes a reader without an owner, and its offset; deleted is false if
	// there is none, or it has an owner.
	Delete(ctx context.Context, name string) (deleted bool, err error)
	// List returns all readers by name.
	List(ctx context.Context) ([]Offset, error)
}
