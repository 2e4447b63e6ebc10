package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
)

// HubConfig tunes a Hub. The zero value is ready to use.
type HubConfig struct {
	Poll      time.Duration // how often it looks without having been told to; default 1 s
	Batch     int           // events per read; default 1000
	Ring      int           // newest events that it keeps for its subscribers; default 4096
	RingBytes int           // of their data; default 16 MiB
	Replays   int           // subscribers that read the log at the same time; default 4
}

func (c HubConfig) withDefaults() HubConfig {
	c.Poll = cmp.Or(c.Poll, time.Second)
	c.Batch = cmp.Or(c.Batch, 1000)
	c.Ring = cmp.Or(c.Ring, 4096)
	c.RingBytes = cmp.Or(c.RingBytes, 16<<20)
	c.Replays = cmp.Or(c.Replays, 4)
	return c
}

// Hub reads the log once for all subscribers of a node.
//
// It keeps the newest events in one ring, and a subscriber is little more than
// its place in the log: it takes its next events from the ring or, if it has
// fallen behind the ring's oldest, reads the log itself until it is back. Who is
// slow thus costs no memory, waits for nobody and is waited for by nobody; and
// there is no seam between old and new events, as both have positions.
type Hub struct {
	log     *Log
	logger  *slog.Logger
	cfg     HubConfig
	wake    coalesce.Signal
	look    coalesce.Signal
	replays chan struct{} // a token for each subscriber that reads the log
	taps    []func(events []*event.Event, gap bool)
	looked  time.Time    // when Run last looked
	failed  int          // how often in a row it could not read
	whole   atomic.Int64 // all that was committed then has been read, in Unix nanoseconds

	mu       sync.RWMutex   // only Run writes timeline, head and ring
	timeline string         // empty before the first look
	head     event.Position // the last event in the ring, also if the ring is empty
	ring     []*event.Event // dense: the last of them is at head
	bytes    int            // of data in the ring
	subs     []*Subscription
	crowds   map[string]*crowd // of subs, by key
	blanked  int               // how often events of the ring were replaced
}

// NewHub returns a Hub that reads nothing until Run is called.
func NewHub(log *Log, logger *slog.Logger, cfg HubConfig) (*Hub, error) {
	if cfg.Poll < 0 || cfg.Batch < 0 || cfg.Ring < 0 || cfg.RingBytes < 0 || cfg.Replays < 0 {
		return nil, fmt.Errorf("hub config: negative value in %+v", cfg)
	}
	cfg = cfg.withDefaults()
	return &Hub{
		log: log, logger: logger, cfg: cfg, wake: coalesce.NewSignal(), look: coalesce.NewSignal(),
		replays: make(chan struct{}, cfg.Replays), crowds: make(map[string]*crowd),
	}, nil
}

// Log returns the log that the hub reads.
func (h *Hub) Log() *Log { return h.log }

// OnDeliver adds a function that hears of every event that the hub reads, in
// order and before any subscriber does: so what follows the log on this node,
// such as a cache, is never behind a client that does. A gap says that events
// before these may have been missed: at the first look, after a restore, and
// when some are not kept any more; then there may be no events at all. The
// function must be quick, and must not change the events. Add it before Run.
func (h *Hub) OnDeliver(fn func(events []*event.Event, gap bool)) { h.taps = append(h.taps, fn) }

func (h *Hub) tell(events []*event.Event, gap bool) {
	for _, fn := range h.taps {
		fn(events, gap)
	}
}

// Wake tells the hub that there may be new events. It never blocks; many calls
// are one.
func (h *Hub) Wake() { h.wake.Set() }

// Look asks the hub to look whether there is anything new, as it does once a
// poll, so that Lag is small again soon. It never blocks; many calls are one.
func (h *Hub) Look() { h.look.Set() }

// AdvanceTo tells the hub that the log goes up to a position. It never blocks; a
// position that the hub has is ignored.
func (h *Hub) AdvanceTo(head event.Position) {
	h.mu.RLock()
	known := head <= h.head
	h.mu.RUnlock()
	if !known {
		h.Wake()
	}
}

// Head returns the place up to which the hub has read; zero before Run has begun.
func (h *Hub) Head() event.Cursor {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return event.Cursor{Timeline: h.timeline, Position: h.head}
}

// Lag returns how long ago it was that the hub has read all that was committed
// then. On a quiet log it grows to the time of a poll and back, less if somebody
// asks it to Look; more than that means that the hub cannot keep up or cannot
// read, or that nobody gives positions, and what it says may be old. Before the
// first look it is very large.
func (h *Hub) Lag() time.Duration {
	return time.Since(time.Unix(0, h.whole.Load()))
}

// Run follows the log until ctx is cancelled. A failed read is logged and tried
// again.
func (h *Hub) Run(ctx context.Context) error {
	poll := time.NewTicker(h.cfg.Poll)
	defer poll.Stop()
	told := false
	for ctx.Err() == nil {
		err := h.follow(ctx, told)
		if err != nil && ctx.Err() == nil {
			h.logger.ErrorContext(ctx, "reading the event log failed", "error", err)
			h.failed++
			told = h.await(ctx, time.After(retryPolicy(h.cfg.Poll).Delay(h.failed)), nil, nil) // however many events there are
			continue
		}
		h.failed = 0
		told = h.await(ctx, poll.C, h.wake, h.look)
	}
	return nil
}

// retryPolicy is the pause between failed reads or writes of the log: short at first, as
// connections are often lost together and replaced at once.
func retryPolicy(limit time.Duration) backoff.Policy {
	return backoff.Policy{First: 20 * time.Millisecond, Max: limit}
}

// lookPause is the least time between two looks.
const lookPause = 100 * time.Millisecond

// await waits until it is time to read; told says that somebody said so, and
// that no look is due.
func (h *Hub) await(ctx context.Context, poll <-chan time.Time, wake, look <-chan struct{}) (told bool) {
	pause := time.NewTimer(time.Until(h.looked.Add(lookPause)))
	defer pause.Stop()
	var asked <-chan struct{} // to look, once the pause is over
	for {
		select {
		case <-ctx.Done():
		case <-poll:
		case <-asked:
		case <-pause.C:
			asked = look
			continue
		case <-wake:
			return len(look) == 0 || time.Since(h.looked) < lookPause
		}
		return false
	}
}

// follow reads all that is new. If it was not told that there is anything, it
// looks at the state first, which also shows that the timeline has changed, and
// how recent the log itself is.
func (h *Hub) follow(ctx context.Context, told bool) error {
	if told {
		return h.catchUp(ctx)
	}
	at := time.Now()
	h.looked = at
	select {
	case <-h.look: // this is the look that was asked for
	default:
	}
	state, err := h.log.State(ctx)
	if err != nil {
		return err
	}
	if current := h.adopt(state); !current {
		if err := h.catchUp(ctx); err != nil {
			return err
		}
	}
	h.whole.Store(at.Add(-state.Behind).UnixNano())
	return nil
}

// catchUp reads to the end of the log.
func (h *Hub) catchUp(ctx context.Context) error {
	limit := ShrinkBatch(h.cfg.Batch, h.failed)
	for {
		found, err := h.log.ReadAfter(ctx, h.Head().Position, limit)
		if err != nil {
			return err
		}
		if err := h.deliver(ctx, found); err != nil {
			return err
		}
		if len(found) < limit {
			return nil
		}
	}
}

// adopt takes over where the log is at the first look, or after a restore: then
// subscribers of another timeline or beyond the head end, as what they have seen
// may never have happened. It reports whether there is nothing to read.
func (h *Hub) adopt(s State) (current bool) {
	if had := h.Head(); s.Timeline == had.Timeline && s.Head >= had.Position {
		return s.Head == had.Position
	}
	h.tell(nil, true)
	h.mu.Lock()
	restored := h.timeline != ""
	h.timeline, h.head, h.ring, h.bytes = s.Timeline, s.Head, nil, 0
	for _, sub := range h.subs {
		sub.lost = restored && (sub.timeline != s.Timeline || sub.place > s.Head)
	}
	var all doors
	for _, c := range h.crowds {
		all.add(c, 0)
		c.asked = 0 // the same position will be another event
	}
	h.mu.Unlock()
	all.open()
	return true
}

// deliver puts the events into the ring and wakes those whom they concern.
func (h *Hub) deliver(ctx context.Context, events []*event.Event) error {
	if len(events) == 0 {
		return nil
	}
	had, first, last := h.Head(), events[0].Cursor, events[len(events)-1].Cursor
	if first.Timeline != had.Timeline {
		return errors.New("the log has another timeline than before")
	}
	blank, err := h.blanks(ctx, events)
	if err != nil {
		return err
	}
	gap := first.Position != had.Position+1 // what lay between is not kept any more
	h.tell(events, gap)
	h.mu.Lock()
	if gap {
		h.ring, h.bytes = nil, 0
	}
	h.blank(blank)
	h.head = last.Position
	h.push(events)
	woken := h.offer(events, had.Position)
	h.mu.Unlock()
	woken.open()
	return nil
}

// offer tells those of new events who want one; had is where the hub was before.
// Who was there too and wants none moves on in its sleep. The caller holds the
// lock, and rings the bell without it: who is woken wants it at once.
func (h *Hub) offer(events []*event.Event, had event.Position) (woken doors) {
	for _, s := range h.subs {
		if s.changed() {
			if c := s.crowd; s.settle() {
				woken.add(c, h.head) // where it sleeps
			}
		}
		if s.crowd.wants(events) {
			woken.add(s.crowd, h.head)
		} else if s.timeline == h.timeline && s.place >= had {
			s.place = max(s.place, h.head)
		}
	}
	return woken
}

// push adds events to the ring and drops the oldest beyond its bounds.
func (h *Hub) push(events []*event.Event) {
	h.ring = append(h.ring, events...)
	for _, e := range events {
		h.bytes += len(e.Data)
	}
	drop := max(0, len(h.ring)-h.cfg.Ring)
	for i, e := range h.ring {
		if i >= drop && h.bytes <= h.cfg.RingBytes {
			break
		}
		h.bytes -= len(e.Data)
		h.ring[i] = nil // the array lives on until append moves it
		drop = max(drop, i+1)
	}
	h.ring = h.ring[drop:]
}
