package export

import (
	"errors"
	"fmt"
	"time"
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

// errURL means that a URL is not one of a broker. The client's own error text may contain
// the password.
func errURL(want string) error { return errors.New("this is not a URL such as " + want) }
