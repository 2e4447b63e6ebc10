package export

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backplane-dev/backplane/internal/event"
)

// NATSSinkConfig says where in NATS events go.
type NATSSinkConfig struct {
	Source  string // of the events
	Stream  string // made if there is none
	Subject string // an event's subject is this, a dot and its type
}

// NATSSink publishes events to a JetStream stream, as structured CloudEvents.
//
// Each message but the first of those that are sent together says which one must
// be the stream's last: so NATS refuses what follows one that it refused or never
// got, and nothing overtakes. The id of the message is that of the event, by
// which NATS drops repeats for as long as the stream's duplicate window lasts.
type NATSSink struct {
	url string
	cfg NATSSinkConfig

	conn   *nats.Conn // nil while there is none
	js     jetstream.JetStream
	closed chan struct{} // once conn is

	stream jetstream.Stream
	end    natsMessage // of the stream when the connection was made

	exported bool           // to the stream, which therefore must be there
	last     event.Position // that was exported
	timeline string         // of the log
}

var _ Sink = (*NATSSink)(nil)

// ResumeExport implements export.Resumer.
func (s *NATSSink) ResumeExport(last event.Position) {
	s.exported, s.last = true, last
}

// NewNATSSink returns a sink that connects when it is used.
func NewNATSSink(url string, cfg NATSSinkConfig) (*NATSSink, error) {
	return &NATSSink{url: url, cfg: cfg}, nil
}

// Close implements export.Sink.
func (s *NATSSink) Close() error {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	return nil
}

// Send implements export.Sink.
func (s *NATSSink) Send(ctx context.Context, events []*event.Event) (int, error) {
	s.timeline = events[0].Cursor.Timeline
	err := s.connect(ctx)
	if err == nil {
		err = s.verifySame(ctx, events)
	}
	if err != nil {
		return 0, errors.Join(err, s.Close())
	}
	n, err := s.publishEvents(ctx, events)
	if n > 0 {
		s.exported, s.last = true, events[n-1].Cursor.Position
	}
	if err != nil {
		return n, errors.Join(fmt.Errorf("publish to the NATS stream %s: %w", s.cfg.Stream, err), s.Close())
	}
	return n, nil
}

func (s *NATSSink) connect(ctx context.Context) error {
	if s.conn != nil && !s.conn.IsClosed() {
		return nil
	}
	// Without reconnects of its own: after one, messages would follow others that
	// were lost with the connection.
	s.closed = make(chan struct{})
	closed := s.closed
	conn, err := nats.Connect(s.url, nats.Name("backplane sink"), nats.NoReconnect(), nats.Timeout(connectTimeout),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	s.conn = conn
	if s.js, err = jetstream.New(conn, jetstream.WithPublishAsyncTimeout(confirmTimeout)); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return s.ensureStream(ctx)
}

// ensureStream makes the stream, or checks the one there is and reads its end.
func (s *NATSSink) ensureStream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	all := s.cfg.Subject + ".>"
	stream, err := s.js.Stream(ctx, s.cfg.Stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && s.exported:
		return fmt.Errorf("find the NATS stream %s: %w", s.cfg.Stream, ErrTargetGone)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		stream, err = s.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: s.cfg.Stream, Description: "events of Backplane", Subjects: []string{all}, Storage: jetstream.FileStorage,
		})
	}
	if err != nil {
		return fmt.Errorf("find or make the NATS stream %s: %w", s.cfg.Stream, err)
	}
	cfg := stream.CachedInfo().Config
	switch {
	case cfg.NoAck:
		return fmt.Errorf("the NATS stream %s confirms nothing (no_ack); name another with ?stream=", s.cfg.Stream)
	case !anySubjectCovers(cfg.Subjects, all):
		return fmt.Errorf("the NATS stream %s takes the subjects %q, not %s; add it, or choose others with ?stream= and ?subject=", s.cfg.Stream, cfg.Subjects, all)
	}
	return s.readEnd(ctx, stream)
}

// publishEvents sends all and waits for each to be confirmed.
func (s *NATSSink) publishEvents(ctx context.Context, events []*event.Event) (int, error) {
	futures := make([]jetstream.PubAckFuture, len(events))
	for i, e := range events {
		msg, err := s.encodeMessage(e)
		if err != nil {
			return 0, err
		}
		opts := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0), jetstream.WithExpectStream(s.cfg.Stream), jetstream.WithMsgID(string(e.ID))}
		if i > 0 {
			opts = append(opts, jetstream.WithExpectLastMsgID(string(events[i-1].ID)))
		}
		if futures[i], err = s.js.PublishMsgAsync(msg, opts...); err != nil {
			return s.countConfirmed(ctx, futures[:i], fmt.Errorf("event %s: %w", e.ID, err))
		}
	}
	return s.countConfirmed(ctx, futures, nil)
}

// countConfirmed waits for confirmations and returns how many came before the first
// that did not. If all came, the error is that of what was not published.
func (s *NATSSink) countConfirmed(ctx context.Context, futures []jetstream.PubAckFuture, after error) (int, error) {
	for i, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return i, err
		case <-s.closed:
			return i, nats.ErrConnectionClosed
		case <-ctx.Done():
			return i, ctx.Err()
		}
	}
	return len(futures), after
}

func (s *NATSSink) encodeMessage(e *event.Event) (*nats.Msg, error) {
	c := newCloudEvent(e, s.cfg.Source)
	body, err := c.encodeStructured()
	if err != nil {
		return nil, err
	}
	msg := nats.NewMsg(s.cfg.Subject + "." + c.Type)
	msg.Header.Set("content-type", structuredType)
	msg.Data = body
	return msg, nil
}

// anySubjectCovers reports whether one of the subjects of a stream covers all of a prefix.
func anySubjectCovers(subjects []string, all string) bool {
	return slices.ContainsFunc(subjects, func(subject string) bool { return subjectCovers(strings.Split(subject, "."), strings.Split(all, ".")) })
}

// subjectCovers reports whether a subject with wildcards covers a prefix that ends in >.
func subjectCovers(subject, prefix []string) bool {
	for i, word := range prefix {
		switch {
		case i >= len(subject):
			return false
		case subject[i] == ">":
			return true
		case word == ">" || subject[i] != "*" && subject[i] != word:
			return false
		}
	}
	return false
}
