package notify

import (
	"errors"
	"fmt"
	"time"
)

// confirmTime is how long a sink waits for the next confirmation of a broker
// before it takes the connection for dead.
const confirmTime = 30 * time.Second

// errSilent says that a broker that was given events said nothing.
var errSilent = fmt.Errorf("the broker confirmed nothing for %v", confirmTime)

// errURL says that a URL is not one of a broker. The client's own text may hold
// the password.
func errURL(want string) error { return errors.New("this is not a URL such as " + want) }
