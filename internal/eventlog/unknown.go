package eventlog

import (
	"log/slog"
	"sync/atomic"

	"github.com/backplane-dev/backplane/internal/event"
)

// maxUnknownTypes bounds the types that an unknownTypes remembers.
const maxUnknownTypes = 100

// unknownTypes counts events of types that this release does not know, as a newer node writes them while
// releases are mixed: only callers with the role ADMIN see them here, and no handler of this
// node reacts to them.
type unknownTypes struct {
	logger *slog.Logger
	events atomic.Int64
	logged map[event.Type]bool // only Run uses it
}

func newUnknownTypes(logger *slog.Logger) *unknownTypes {
	return &unknownTypes{logger: logger, logged: map[event.Type]bool{}}
}

// count looks at the events, and logs each unknown type once.
func (u *unknownTypes) count(events []*event.Event) {
	for _, e := range events {
		if event.IsDeclared(e.Type) {
			continue
		}
		u.events.Add(1)
		if u.logged[e.Type] || len(u.logged) == maxUnknownTypes {
			continue
		}
		u.logged[e.Type] = true
		u.logger.Warn("the log has events of a type that this release does not know: a newer node writes them, and this one does nothing for them",
			"type", e.Type, "event", e.ID, "position", e.Cursor.Position)
	}
}

// UnknownEvents returns how many events of types that this release does not know the hub has read.
func (h *Hub) UnknownEvents() int64 { return h.unknown.events.Load() }
