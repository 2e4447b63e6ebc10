// Package notify sends notifications of new events between nodes: within a process, through
// PostgreSQL's LISTEN and NOTIFY, or through Redis publish and subscribe. Its types implement
// eventlog.Notifier.
//
// A notification carries no events, it only makes a node read the log. A notifier may lose,
// repeat and reorder notifications. After a reconnect it delivers the zero
// notification, because it may have lost some. The hub of each node owns what follows.
package notify

import (
	"strconv"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/event"
)

// encodeNotification writes a notification as text: the head, and a w if events wait for positions.
func encodeNotification(h event.Notification) string {
	s := strconv.FormatInt(int64(h.Head), 10)
	if h.Waiting {
		s += "w"
	}
	return s
}

// decodeNotification parses the text of encodeNotification. Any other text gives the zero
// notification, which makes the receiver read the log.
func decodeNotification(s string) event.Notification {
	digits, waiting := strings.CutSuffix(s, "w")
	head, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || head < 0 {
		return event.Notification{}
	}
	return event.Notification{Head: event.Position(head), Waiting: waiting}
}

// Timeouts of connections.
const (
	connectTimeout = 5 * time.Second        // to connect, or to send a notification
	idleTimeout    = 30 * time.Second       // without a notification, after which the connection is probed
	closeTimeout   = 100 * time.Millisecond // for the answer of the server when a connection is closed
)

// reconnects is the pause between attempts to connect.
var reconnects = backoff.Policy{First: 50 * time.Millisecond, Max: 3 * time.Second}
