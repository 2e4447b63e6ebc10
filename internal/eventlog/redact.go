package eventlog

import (
	"context"
	"fmt"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// readRedacted reads events of the ring again if one of the new events deletes a user: the
// same transaction redacted the user's data in the log.
func (h *Hub) readRedacted(ctx context.Context, events []*event.Event) (blank []*event.Event, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	before := h.beforeRing()
	for _, e := range events {
		if e.Type != event.UserDeleted {
			continue
		}
		found, err := h.cfg.Reader.store.Read(ctx, event.Filter{UserID: uid.User(e.SubjectID)}, Span{After: before, Before: events[0].Cursor.Position, Limit: h.cfg.Ring})
		if err != nil {
			return nil, fmt.Errorf("read redacted events of a user: %w", err)
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

// replaceRedacted replaces the events of the ring at these positions. Followers then read
// again what they have taken and not returned. The caller holds the lock.
func (h *Hub) replaceRedacted(events []*event.Event) {
	before := h.head - event.Position(len(h.ring))
	for _, e := range events {
		if i := int(e.Cursor.Position-before) - 1; i >= 0 && i < len(h.ring) {
			h.bytes += len(e.Data) - len(h.ring[i].Data)
			h.ring[i] = e
		}
	}
	if len(events) > 0 {
		h.redactions++
	}
}
