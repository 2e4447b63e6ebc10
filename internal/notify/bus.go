// Package notify owns how nodes hear of one another's events: within a process,
// through PostgreSQL's NOTIFY, or through Redis. And it owns the sinks: how
// events get to brokers outside, as CloudEvents.
//
// What a bus carries is only a reason to read the log. It may lose, repeat and
// reorder, and it says so when it may have lost something. A sink does none of
// that; export.Exporter says when it sends what.
package notify

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// encode writes a hint as text: the head, and a w if events wait.
func encode(h event.Notification) string {
	s := strconv.FormatInt(int64(h.Head), 10)
	if h.Waiting {
		s += "w"
	}
	return s
}

// decode reads what encode made. Anything else is the zero Hint, which makes
// its reader look for itself.
func decode(s string) event.Notification {
	digits, waiting := strings.CutSuffix(s, "w")
	head, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || head < 0 {
		return event.Notification{}
	}
	return event.Notification{Head: event.Position(head), Waiting: waiting}
}

// Times of connections.
const (
	connectTime = 5 * time.Second  // to connect, or to send a hint
	quietTime   = 30 * time.Second // without a hint, after which the connection is tried
	firstPause  = 100 * time.Millisecond
	longPause   = 5 * time.Second
)

// pause waits between two tries to connect: twice as long each time, up to a
// limit, and not for all nodes at the same moment.
func pause(ctx context.Context, try int) {
	d := min(firstPause<<min(try, 10), longPause)
	select {
	case <-ctx.Done():
	case <-time.After(d/2 + rand.N(d/2)): //nolint:gosec // chance guards nothing here
	}
}
