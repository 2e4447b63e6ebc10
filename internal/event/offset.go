package event

import (
	"context"
	"time"
)

// Offset is how far a named reader of the log has come.
type Offset struct {
	Name     string
	Position Position  // it is done with everything up to here
	Holder   string    // who owned it last; empty if nobody ever did
	Epoch    int64     // raised by each change of owner
	Expires  time.Time // when the lease ends, or ended
	Moved    time.Time // when Position last changed
}

// Tenure is the right of one node to be a named reader, and the reader's place.
type Tenure struct {
	Name     string
	Holder   string
	Epoch    int64
	Position Position
}

// Offsets keeps the places of named readers in the database: those of consumers
// and sinks, each of which one node runs at a time. Each method is one statement
// that commits by itself. On PostgreSQL time is the database's; an SQLite file
// has one server, whose time counts.
type Offsets interface {
	// Take takes the reader for ttl if nobody owns it, its lease has expired, or
	// the holder owns it already; ok is false if somebody else does. A reader that
	// is not known yet begins behind start.
	Take(ctx context.Context, name, holder string, start Position, ttl time.Duration) (t Tenure, ok bool, err error)
	// Save says that the reader is done with everything up to the position, and
	// renews its lease. A place never moves back. ErrLeaseLost says that the tenure
	// is over, and that nothing was stored.
	Save(ctx context.Context, t Tenure, done Position, ttl time.Duration) (Tenure, error)
	// Release gives the reader up, if the tenure still holds.
	Release(ctx context.Context, t Tenure) error
	// Forget removes a reader that nobody owns, and its place with it; forgotten is
	// false if there is none, or somebody owns it.
	Forget(ctx context.Context, name string) (forgotten bool, err error)
	// List returns all readers by name.
	List(ctx context.Context) ([]Offset, error)
}
