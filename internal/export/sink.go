package export

import (
	"errors"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// Timeouts of connections to brokers.
const (
	connectTimeout = 5 * time.Second
	idleTimeout    = 30 * time.Second       // without traffic, after which the peer is probed
	closeTimeout   = 100 * time.Millisecond // for the closing handshake
)

// confirmTimeout is how long a sink waits for the next confirmation of a broker
// before it treats the connection as dead.
const confirmTimeout = 30 * time.Second

// errConfirmTimeout means that a broker did not confirm events in time.
var errConfirmTimeout = fmt.Errorf("the broker confirmed nothing for %v", confirmTimeout)

// ErrTargetGone means that the target of a sink that exported before is missing, or lacks its end. To make
// it anew would lose events in silence: nothing is bound to a new exchange, and a new stream has no past.
var ErrTargetGone = errors.New("the sink has exported to it before, and it is gone: make it again as it was, with its bindings and consumers")

// errRestored means that a target holds events that the log has lost.
func errRestored(p event.Position) error {
	return fmt.Errorf("it holds another event at position %d: the database was restored from a backup; stop the servers, run backplane migrate --after-restore, and start them again", p)
}

// lastUpTo returns the last of the events up to a position; nil if there is none.
func lastUpTo(events []*event.Event, p event.Position) (last *event.Event) {
	for _, e := range events {
		if e.Cursor.Position > p {
			break
		}
		last = e
	}
	return last
}

// errURL means that a URL is not one of a broker. The client's own error text may contain
// the password.
func errURL(want string) error { return errors.New("this is not a URL such as " + want) }
