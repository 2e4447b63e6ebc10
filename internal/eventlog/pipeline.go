package eventlog

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
)

// Notifier carries hints between nodes. It may lose, repeat and reorder them.
type Notifier interface {
	// Notify gives the hint to the other nodes; it may come back to the sender too.
	Notify(ctx context.Context, h event.Notification) error
	// Listen calls receive for each hint, one after the other, until ctx is cancelled,
	// then returns nil. After a time without connection, in which hints may have
	// been lost, it calls receive with the zero Hint: look for yourself.
	Listen(ctx context.Context, receive func(event.Notification)) error
}

// Pipeline is a node's part in the log: it tells the sequencer, wherever that is,
// of events that were stored here, and the Hub of positions that were given.
type Pipeline struct {
	Hub *Hub

	sequencer *Sequencer // nil where the writer gives the positions
	bus       Notifier
	log       *slog.Logger

	mu     sync.Mutex
	outbox event.Notification // not sent yet
	filled coalesce.Signal
}

// PipelineConfig tunes the parts of a Feed. The zero value is ready to use.
type PipelineConfig struct {
	Hub       HubConfig
	Sequencer SequencerConfig
}

// NewPipeline returns a Feed of the log that does nothing until Run is called.
// Numbering is nil where the writer gives the positions.
func NewPipeline(log *Log, n PositionStore, bus Notifier, logger *slog.Logger, cfg PipelineConfig) (*Pipeline, error) {
	hub, err := NewHub(log, logger, cfg.Hub)
	if err != nil {
		return nil, err
	}
	f := &Pipeline{Hub: hub, bus: bus, log: logger, filled: coalesce.NewSignal()}
	if n != nil {
		f.sequencer, err = NewSequencer(n, f.announce, logger, cfg.Sequencer)
	}
	return f, err
}

// EventsAppended tells that a transaction has stored events and was committed. It
// never blocks. If the call is lost, with the node or on the way, the events are
// found within a second or so.
func (f *Pipeline) EventsAppended() {
	switch {
	case f.sequencer == nil:
		f.Hub.Wake()
		f.post(event.Notification{Waiting: true})
	case f.sequencer.Leading():
		f.sequencer.Wake()
	default:
		f.post(event.Notification{Waiting: true})
	}
}

// Run runs hub, sequencer and bus until ctx is cancelled or one of them fails.
func (f *Pipeline) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.Hub.Run(ctx) })
	g.Go(func() error { return f.bus.Listen(ctx, f.receive) })
	g.Go(func() error { return f.send(ctx) })
	if f.sequencer != nil {
		g.Go(func() error { return f.sequencer.Run(ctx) })
	}
	return g.Wait()
}

// announce tells everybody how far the log goes, this node first.
func (f *Pipeline) announce(head event.Position) {
	f.Hub.AdvanceTo(head)
	f.post(event.Notification{Head: head})
}

func (f *Pipeline) receive(h event.Notification) {
	if f.sequencer != nil && (h.Waiting || h == event.Notification{}) {
		f.sequencer.Wake()
	}
	if h.Head > 0 {
		f.Hub.AdvanceTo(h.Head)
	} else if f.sequencer == nil || !h.Waiting {
		f.Hub.Wake()
	}
}

// post leaves a hint to be sent; what waits already becomes one with it.
func (f *Pipeline) post(h event.Notification) {
	f.mu.Lock()
	f.outbox = event.Notification{Head: max(h.Head, f.outbox.Head), Waiting: h.Waiting || f.outbox.Waiting}
	f.mu.Unlock()
	f.filled.Set()
}

// send sends what is in the outbox, one hint at a time: while one is under way,
// the next ones gather.
func (f *Pipeline) send(ctx context.Context) error {
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
		err := f.bus.Notify(ctx, h)
		if err != nil && !failed && ctx.Err() == nil {
			f.log.WarnContext(ctx, "telling other nodes of events failed; they look once a second", "error", err)
		}
		failed = err != nil
	}
}

// Numbers reports whether it is this node that gives the positions.
func (f *Pipeline) Numbers() bool { return f.sequencer != nil && f.sequencer.Leading() }
