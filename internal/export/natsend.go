package export

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/backplane-dev/backplane/internal/event"
)

// natsReadTimeout bounds a read of one message. A user without the right to read the stream
// gets no answer.
const natsReadTimeout = 2 * time.Second

// maxNATSProbes bounds how many messages are read to find an event: repeats move it from where it is
// in a stream that has each event once.
const maxNATSProbes = 8

// natsMessage is a message of the stream that holds an event; zero if there is none.
type natsMessage struct {
	sequence uint64
	id       string
	timeline string
	position event.Position
}

// readEnd reads the last event in the stream. A stream that was restored from an earlier state, and
// so lacks what was exported last, counts as gone.
func (s *NATSSink) readEnd(ctx context.Context, stream jetstream.Stream) error {
	s.stream, s.end = stream, natsMessage{}
	info := stream.CachedInfo()
	if info.State.Msgs == 0 {
		return nil
	}
	end, err := readNATS(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return stream.GetLastMsgForSubject(ctx, s.cfg.Subject+".>")
	})
	if err != nil {
		return err
	}
	s.end = end
	// In another kind of stream consumers remove messages, and a message behind the end was removed, too.
	atEnd := info.Config.Retention == jetstream.LimitsPolicy && end.sequence == info.State.LastSeq
	if atEnd && end.position > 0 && end.timeline == s.timeline && end.position < s.last {
		return fmt.Errorf("the NATS stream %s ends at position %d, and events up to %d were exported: it has lost its end; "+
			"backplane sinks rewind exports what is missing: %w", s.cfg.Stream, end.position, s.last, ErrTargetGone)
	}
	return nil
}

// verifySame makes sure that the stream has the events where it has their positions, by one of them, if its message is
// still there. Another event there is of a future that the log has lost.
func (s *NATSSink) verifySame(ctx context.Context, events []*event.Event) error {
	last := lastUpTo(events, s.end.position)
	if last == nil || s.end.timeline != last.Cursor.Timeline {
		return nil
	}
	found, err := s.findEvent(ctx, last.Cursor)
	if err == nil && found.id != "" && found.id != string(last.ID) {
		err = fmt.Errorf("the NATS stream %s: %w", s.cfg.Stream, errRestored(last.Cursor.Position))
	}
	return err
}

// findEvent finds the message of a position that is not behind the end; zero if it is not found.
func (s *NATSSink) findEvent(ctx context.Context, at event.Cursor) (natsMessage, error) {
	m := s.end
	for range maxNATSProbes {
		if m.timeline != at.Timeline || m.position == at.Position {
			break
		}
		sequence := int64(m.sequence) - int64(m.position-at.Position) //nolint:gosec // far below the bound
		if sequence < 1 || uint64(sequence) > s.end.sequence {
			return natsMessage{}, nil
		}
		var err error
		m, err = readNATS(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
			return s.stream.GetMsg(ctx, uint64(sequence)) //nolint:gosec // at least 1
		})
		if err != nil {
			return m, err
		}
	}
	if m.timeline != at.Timeline || m.position != at.Position {
		return natsMessage{}, nil
	}
	return m, nil
}

// readNATS reads a message; zero if there is none, it holds no event of a sink, or the user may not read it.
func readNATS(ctx context.Context, get func(context.Context) (*jetstream.RawStreamMsg, error)) (natsMessage, error) {
	limited, cancel := context.WithTimeout(ctx, natsReadTimeout)
	defer cancel()
	raw, err := get(limited)
	switch {
	case err != nil && ctx.Err() != nil:
		return natsMessage{}, ctx.Err()
	case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, context.DeadlineExceeded):
		return natsMessage{}, nil
	case err != nil:
		return natsMessage{}, fmt.Errorf("read the end of the NATS stream: %w", err)
	}
	var e cloudEvent
	if err := json.Unmarshal(raw.Data, &e); err != nil {
		return natsMessage{}, nil // of another writer
	}
	position, err := strconv.ParseInt(e.Position, 10, 64)
	if err != nil {
		return natsMessage{}, nil // of another writer
	}
	return natsMessage{raw.Sequence, e.ID, e.Timeline, event.Position(position)}, nil
}
