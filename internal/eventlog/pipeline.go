package eventlog

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
)

// Notifier carries notifications between nodes. It may lose, repeat and reorder them.
type Notifier interface {
	// Notify sends the notification to the other nodes; it may come back to the sender too.
	Notify(ctx context.Context, h event.Notification) error
	// Listen calls receive for each notification, one after the other, until ctx is cancelled,
	// then returns nil. After a time without connection, in which some may have been lost,
	// it calls receive with the zero Notification: read the log.
	Listen(ctx context.Context, receive func(event.Notification)) error
}

// Pipeline is a node's part in the log. It notifies the sequencer, on whatever node that runs,
// of events that were stored here, and the Hub of positions that were assigned.
type Pipeline struct {
	Hub *Hub

	sequencer *Sequencer // nil on SQLite, where the writer assigns the positions
	notifier  Notifier
	log       *slog.Logger

	mu     sync.Mutex
	outbox event.Notification // not sent yet
	filled coalesce.Signal
}

// PipelineConfig tunes the parts of a Pipeline. The zero value is ready to use.
type PipelineConfig struct {
	Hub       HubConfig
	Sequencer SequencerConfig
}

// NewPipeline returns a Pipeline that does nothing until Run is called. The PositionStore is nil
// where the writer assigns the positions.
func NewPipeline(log *Log, n PositionStore, bus Notifier, logger *slog.Logger, cfg PipelineConfig) (*Pipeline, error) {
	hub, err := NewHub(log, logger, cfg.Hub)
	if err != nil {
		return nil, err
	}
	f := &Pipeline{Hub: hub, notifier: bus, log: logger, filled: coalesce.NewSignal()}
	if n != nil {
		if f.sequencer, err = NewSequencer(n, f.announceHead, logger, cfg.Sequencer); err != nil {
			return nil, err
		}
		hub.positions = n
		f.sequencer.verify = hub.verifyHead
	}
	return f, nil
}

// EventsAppended notifies the sequencer that a transaction has committed events. It never
// blocks. If the notification is lost, the next poll finds the events within a second or so.
func (f *Pipeline) EventsAppended() {
	switch {
	case f.sequencer == nil:
		f.Hub.Wake()
		f.queueNotification(event.Notification{Waiting: true})
	case f.sequencer.Leading():
		f.sequencer.Wake()
	default:
		f.queueNotification(event.Notification{Waiting: true})
	}
}

// Run runs hub, sequencer and notifier until ctx is cancelled or one of them fails.
func (f *Pipeline) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.Hub.Run(ctx) })
	g.Go(func() error { return f.notifier.Listen(ctx, f.receiveNotification) })
	g.Go(func() error { return f.sendNotifications(ctx) })
	if f.sequencer != nil {
		g.Go(func() error { return f.sequencer.Run(ctx) })
	}
	return g.Wait()
}

// announceHead notifies all nodes of the head, this one first.
func (f *Pipeline) announceHead(head event.Position) {
	f.Hub.AdvanceTo(head)
	f.queueNotification(event.Notification{Head: head})
}

func (f *Pipeline) receiveNotification(h event.Notification) {
	if f.sequencer != nil && (h.Waiting || h == event.Notification{}) {
		f.sequencer.Wake()
	}
	if h.Head > 0 {
		f.Hub.AdvanceTo(h.Head)
	} else if f.sequencer == nil || !h.Waiting {
		f.Hub.Wake()
	}
}

// queueNotification merges the notification with the one that waits to be sent.
func (f *Pipeline) queueNotification(h event.Notification) {
	f.mu.Lock()
	f.outbox = event.Notification{Head: max(h.Head, f.outbox.Head), Waiting: h.Waiting || f.outbox.Waiting}
	f.mu.Unlock()
	f.filled.Set()
}

// sendNotifications sends the notification of the outbox, one at a time: while one is sent, the
// next ones coalesce.
func (f *Pipeline) sendNotifications(ctx context.Context) error {
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.filled:
		}
		f.mu.Lock()
		h := f.outbox
		f.outbox = event.Notification{}
		f.mu.Unlock()
		err := f.notifier.Notify(ctx, h)
		if err != nil && !failed && ctx.Err() == nil {
			f.log.WarnContext(ctx, "nodes cannot be notified of events; they poll the log once a second", "error", err)
		}
		failed = err != nil
	}
}
