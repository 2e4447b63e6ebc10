package export

import (
	"errors"
	"fmt"
	"time"
)

// Timeouts of connections to brokers.
const (
	connectTimeout = 5 * time.Second
	quietTimeout   = 30 * time.Second       // without traffic, after which the peer is probed
	closeTimeout   = 100 * time.Millisecond // for the closing handshake
)

// confirmTimeout is how long a sink waits for the next confirmation of a broker
// before it takes the connection for dead.
const confirmTimeout = 30 * time.Second

// errSilent says that a broker that was given events said nothing.
var errSilent = fmt.Errorf("the broker confirmed nothing for %v", confirmTimeout)

// errURL says that a URL is not one of a broker. The client's own text may hold
// the password.
func errURL(want string) error { return errors.New("this is not a URL such as " + want) }
