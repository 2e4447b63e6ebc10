package eventlog

import (
	"context"
	"fmt"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// blanks returns events of the ring as they are stored now, if among the new
// events a user is deleted: what the log held of that person was blanked in the
// same transaction.
func (h *Hub) blanks(ctx context.Context, events []*event.Event) (blank []*event.Event, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	before := h.beforeRing()
	for _, e := range events {
		if e.Type != event.UserDeleted {
			continue
		}
		found, err := h.log.store.Read(ctx, event.Filter{UserID: uid.User(e.SubjectID)}, Span{After: before, Before: events[0].Cursor.Position, Limit: h.cfg.Ring})
		if err != nil {
			return nil, fmt.Errorf("read what is left of a user: %w", err)
		}
		blank = append(blank, found...)
	}
	return blank, nil
}

func (h *Hub) beforeRing() event.Position {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.head - event.Position(len(h.ring))
}

// blank puts events in the place of those that the ring has at their positions.
// Subscribers look again for what they have taken and not shown. The caller
// holds the lock.
func (h *Hub) blank(events []*event.Event) {
	before := h.head - event.Position(len(h.ring))
	for _, e := range events {
		if i := int(e.Cursor.Position-before) - 1; i >= 0 && i < len(h.ring) {
			h.bytes += len(e.Data) - len(h.ring[i].Data)
			h.ring[i] = e
		}
	}
	if len(events) > 0 {
		h.blanked++
	}
}
