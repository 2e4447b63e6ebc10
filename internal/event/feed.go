package event

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Hint is what nodes tell one another. It is never more than a reason to look.
type Hint struct {
	Head    Position // the log goes up to here; 0 if this is not about that
	Waiting bool     // there are events without a position
}

// Bus carries hints between nodes. It may lose, repeat and reorder them.
type Bus interface {
	// Send gives the hint to the other nodes; it may come back to the sender too.
	Send(ctx context.Context, h Hint) error
	// Run calls receive for each hint, one after the other, until ctx is cancelled,
	// then returns nil. After a time without connection, in which hints may have
	// been lost, it calls receive with the zero Hint: look for yourself.
	Run(ctx context.Context, receive func(Hint)) error
}

// Feed is a node's part in the log: it tells the sequencer, wherever that is,
// of events that were stored here, and the Hub of positions that were given.
type Feed struct {
	Hub *Hub

	sequencer *Sequencer // nil where the writer gives the positions
	bus       Bus
	log       *slog.Logger

	mu     sync.Mutex
	outbox Hint // not sent yet
	filled chan struct{}
}

// FeedConfig tunes the parts of a Feed. The zero value is ready to use.
type FeedConfig struct {
	Hub       HubConfig
	Sequencer SequencerConfig
}

// NewFeed returns a Feed of the log that does nothing until Run is called.
// Numbering is nil where the writer gives the positions.
func NewFeed(log *Log, n Numbering, bus Bus, logger *slog.Logger, cfg FeedConfig) (*Feed, error) {
	hub, err := NewHub(log, logger, cfg.Hub)
	if err != nil {
		return nil, err
	}
	f := &Feed{Hub: hub, bus: bus, log: logger, filled: make(chan struct{}, 1)}
	if n != nil {
		f.sequencer, err = NewSequencer(n, f.announce, logger, cfg.Sequencer)
	}
	return f, err
}

// Appended tells that a transaction has stored events and was committed. It
// never blocks. If the call is lost, with the node or on the way, the events are
// found within a second or so.
func (f *Feed) Appended() {
	switch {
	case f.sequencer == nil:
		f.Hub.Wake()
		f.post(Hint{Waiting: true})
	case f.sequencer.Leading():
		f.sequencer.Wake()
	default:
		f.post(Hint{Waiting: true})
	}
}

// Run runs hub, sequencer and bus until ctx is cancelled or one of them fails.
func (f *Feed) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.Hub.Run(ctx) })
	g.Go(func() error { return f.bus.Run(ctx, f.receive) })
	g.Go(func() error { return f.send(ctx) })
	if f.sequencer != nil {
		g.Go(func() error { return f.sequencer.Run(ctx) })
	}
	return g.Wait()
}

// announce tells everybody how far the log goes, this node first.
func (f *Feed) announce(head Position) {
	f.Hub.Announce(head)
	f.post(Hint{Head: head})
}

func (f *Feed) receive(h Hint) {
	if f.sequencer != nil && (h.Waiting || h == Hint{}) {
		f.sequencer.Wake()
	}
	if h.Head > 0 {
		f.Hub.Announce(h.Head)
	} else if f.sequencer == nil || !h.Waiting {
		f.Hub.Wake()
	}
}

// post leaves a hint to be sent; what waits already becomes one with it.
func (f *Feed) post(h Hint) {
	f.mu.Lock()
	f.outbox = Hint{Head: max(h.Head, f.outbox.Head), Waiting: h.Waiting || f.outbox.Waiting}
	f.mu.Unlock()
	signal(f.filled)
}

// send sends what is in the outbox, one hint at a time: while one is under way,
// the next ones gather.
func (f *Feed) send(ctx context.Context) error {
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.filled:
		}
		f.mu.Lock()
		h := f.outbox
		f.outbox = Hint{}
		f.mu.Unlock()
		err := f.bus.Send(ctx, h)
		if err != nil && !failed && ctx.Err() == nil {
			f.log.WarnContext(ctx, "telling other nodes of events failed; they look twice a second", "error", err)
		}
		failed = err != nil
	}
}

// Numbers reports whether it is this node that gives the positions.
func (f *Feed) Numbers() bool { return f.sequencer != nil && f.sequencer.Leading() }
