package eventlog

import (
	"context"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// verifyContinuity reports the state of a log that holds what the hub has read. Where it does not, since a
// fail-over lost the newest events or an older copy of the database took its place, it begins
// another timeline: positions that readers have seen would stand for other events.
func (h *Hub) verifyContinuity(ctx context.Context, s State) (State, error) {
	had := h.Head()
	if h.positions == nil || had.Timeline != s.Timeline || had.Position == 0 {
		return s, nil
	}
	lost := s.Head < had.Position
	if !lost {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		found, err := h.positions.EventAt(ctx, had.Position)
		if err != nil {
			return s, err
		}
		lost = found != "" && h.headID != "" && found != h.headID // retention may have removed it
	}
	if !lost {
		return s, nil
	}
	if err := h.abandonTimeline(ctx, had.Timeline, s.Head); err != nil {
		return s, err
	}
	return h.log.State(ctx)
}

// headEvent returns the id of the event at the head of a log that the hub begins to follow; empty if there is none.
// It is read before anyone can have a cursor of the hub: an event that takes its place later is noticed.
func (h *Hub) headEvent(ctx context.Context, s State) (uid.Event, error) {
	if h.positions == nil || s.Head == 0 {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return h.positions.EventAt(ctx, s.Head)
}

// place is what the hub knows of where the log is.
type place struct {
	verified bool  // the hub has verified it in some epoch
	done     bool  // it has verified it in this epoch
	epoch    int64 // of the database
}

func (h *Hub) epoch() int64 {
	if h.positions == nil {
		return 0
	}
	return h.positions.Epoch()
}

// verifyPlace notices a database that was restored while no node looked, once for each epoch of the database: before the
// first read, and then after verifyContinuity has found the events of before. A timeline that it begins is seen by the next read.
func (h *Hub) verifyPlace(ctx context.Context, epoch int64) error {
	if h.positions == nil || h.place.done && h.place.epoch == epoch {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	done, err := h.positions.VerifyPlace(ctx, h.place.verified)
	if err != nil {
		return err
	}
	h.place = place{verified: h.place.verified || done, done: done, epoch: epoch}
	return nil
}

// verifyHead is verifyContinuity for the sequencer, with the head of the log and the position that the sequencer
// assigned last: no position may be assigned twice in one timeline.
func (h *Hub) verifyHead(ctx context.Context, head, assigned event.Position) error {
	had := h.Head()
	if had.Timeline == "" || head >= max(had.Position, assigned) {
		return nil
	}
	return h.abandonTimeline(ctx, had.Timeline, head)
}

// abandonTimeline begins another timeline, unless another node has done so.
func (h *Hub) abandonTimeline(ctx context.Context, timeline string, head event.Position) error {
	h.logger.ErrorContext(ctx, "the event log lost events that were read: the database failed over without them, or an older copy took its place; "+
		"another timeline begins, and cursors of before are refused", "timeline", timeline, "head", int64(head), "had", int64(h.Head().Position))
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return h.positions.AbandonTimeline(ctx, timeline)
}
