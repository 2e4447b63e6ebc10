package eventlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// HubConfig tunes a Hub. The zero value is ready to use.
type HubConfig struct {
	Poll      time.Duration // how often it checks the log without a notification; default 1 s
	Batch     int           // events per read; default 1000
	Ring      int           // newest events that it keeps for its subscribers; default 4096
	RingBytes int           // of their data; default 16 MiB
	Replays   int           // subscribers that read the log at the same time; default 4
	Reader    *Log          // the log as the hub itself reads it, on connections of its own; default that of the subscribers
}

func (c HubConfig) withDefaults() HubConfig {
	c.Poll = cmp.Or(c.Poll, time.Second)
	c.Batch = cmp.Or(c.Batch, 1000)
	c.Ring = cmp.Or(c.Ring, 4096)
	c.RingBytes = cmp.Or(c.RingBytes, 16<<20)
	c.Replays = cmp.Or(c.Replays, 4)
	return c
}

// Hub reads the log once for all subscribers of a node and fans events out to them.
//
// It keeps the newest events in one ring, and a subscription is little more than a position:
// it takes its next events from the ring or, if it has fallen behind the oldest event there,
// reads the log itself until it has caught up. A slow subscriber thus costs no memory (its
// backpressure ends at its own position) and delays no other; and there is no seam between
// old and new events, since both have positions.
type Hub struct {
	log          *Log
	logger       *slog.Logger
	cfg          HubConfig
	wake         coalesce.Signal
	look         coalesce.Signal
	replays      *semaphore.Weighted // a permit for each subscription that reads the log
	deliverHooks []func(events []*event.Event, gap bool)
	pendingHooks []func(pending []*event.Event)
	positions    PositionStore // nil where the writer assigns positions; see verifyContinuity
	headID       uid.Event     // of the event at head, empty if it is not known; only Run uses it
	place        place         // only Run uses it
	checkedAt    time.Time     // when Run last read the state
	failures     int           // failed reads in a row
	freshness    freshness
	unknown      *unknownTypes
	beyond       *beyondHead

	mu         sync.RWMutex   // only Run writes timeline, head and ring
	timeline   string         // empty before the first read
	head       event.Position // that of the last event read, also if the ring is empty
	ring       []*event.Event // dense: the last of them is at head
	bytes      int            // of data in the ring
	subs       []*Subscription
	groups     map[string]*subscriptionGroup // of subs, by key
	redactions int                           // how often events of the ring were redacted
}

// NewHub returns a Hub that reads nothing until Run is called.
func NewHub(log *Log, logger *slog.Logger, cfg HubConfig) (*Hub, error) {
	if cfg.Poll < 0 || cfg.Batch < 0 || cfg.Ring < 0 || cfg.RingBytes < 0 || cfg.Replays < 0 {
		return nil, fmt.Errorf("hub config: negative value in %+v", cfg)
	}
	cfg = cfg.withDefaults()
	cfg.Reader = cmp.Or(cfg.Reader, log)
	return &Hub{
		freshness: newFreshness(), log: log, logger: logger, cfg: cfg, wake: coalesce.NewSignal(), look: coalesce.NewSignal(),
		replays: semaphore.NewWeighted(int64(cfg.Replays)), groups: make(map[string]*subscriptionGroup), unknown: newUnknownTypes(logger), beyond: &beyondHead{logger: logger},
	}, nil
}

// Log returns the log that the hub reads.
func (h *Hub) Log() *Log { return h.log }

// OnDeliver adds a function that receives every event that the hub reads, in order and
// before any subscriber does: so a reader on this node, such as a cache, is never behind a
// client. A gap says that events before these may have been missed: at the first read, after a
// restore, and when retention has removed some; then there may be no events at all. The
// function must be quick, and must not change the events. Add it before Run.
func (h *Hub) OnDeliver(fn func(events []*event.Event, gap bool)) {
	h.deliverHooks = append(h.deliverHooks, fn)
}

// OnPending adds a function that receives committed events before they have a position, while the
// sequencer is behind: again at each read until they have one, and then as OnDeliver says. Of
// each event the ID, Type and SubjectID are known. Add it before Run.
func (h *Hub) OnPending(fn func(pending []*event.Event)) {
	h.pendingHooks = append(h.pendingHooks, fn)
}

func (h *Hub) callDeliverHooks(events []*event.Event, gap bool) {
	for _, fn := range h.deliverHooks {
		fn(events, gap)
	}
}

// Wake notifies the hub that there may be new events. It never blocks; many calls
// are one.
func (h *Hub) Wake() { h.wake.Set() }

// Look makes the hub read the state of the log, as it does once a poll interval, so that Lag
// is small again soon. It never blocks; many calls are one.
func (h *Hub) Look() { h.look.Set() }

// AdvanceTo notifies the hub of a new head. It never blocks; a position that the hub has read
// is ignored.
func (h *Hub) AdvanceTo(head event.Position) {
	h.mu.RLock()
	known := head <= h.head
	h.mu.RUnlock()
	if !known {
		h.Wake()
	}
}

// Head returns the cursor up to which the hub has read; zero before Run has begun.
func (h *Hub) Head() event.Cursor {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return event.Cursor{Timeline: h.timeline, Position: h.head}
}

// Run follows the log until ctx is cancelled. A failed read is logged and tried
// again.
func (h *Hub) Run(ctx context.Context) error {
	poll := time.NewTicker(h.cfg.Poll)
	defer poll.Stop()
	told := false
	for ctx.Err() == nil {
		err := h.readNew(ctx, told)
		if !told {
			h.freshness.endLook(err)
		}
		if err != nil && ctx.Err() == nil {
			h.logger.ErrorContext(ctx, "event log cannot be read; retrying", "error", err)
			h.failures++
			told = h.awaitWork(ctx, time.After(retryPolicy(h.cfg.Poll).Delay(h.failures)), nil, nil) // however many events there are
			continue
		}
		h.failures = 0
		told = h.awaitWork(ctx, poll.C, h.wake, h.look)
	}
	return nil
}

// retryPolicy is the pause between failed reads or writes of the log: short at first, as
// connections are often lost together and replaced at once.
func retryPolicy(limit time.Duration) backoff.Policy {
	return backoff.Policy{First: 20 * time.Millisecond, Max: limit}
}

// minCheckInterval is the least time between two reads of the state.
const minCheckInterval = 100 * time.Millisecond

// awaitWork waits until it is time to read; told says that a notification came, and that the
// state need not be read first.
func (h *Hub) awaitWork(ctx context.Context, poll <-chan time.Time, wake, look <-chan struct{}) (told bool) {
	pause := time.NewTimer(time.Until(h.checkedAt.Add(minCheckInterval)))
	defer pause.Stop()
	var asked <-chan struct{} // look, once the pause is over
	for {
		select {
		case <-ctx.Done():
		case <-poll:
		case <-asked:
		case <-pause.C:
			asked = look
			continue
		case <-wake:
			return len(look) == 0 || time.Since(h.checkedAt) < minCheckInterval
		}
		return false
	}
}

// readNew reads all new events. Without a notification it reads the state first, which also
// shows a changed timeline and how far the sequencer is behind.
func (h *Hub) readNew(ctx context.Context, told bool) error {
	if told {
		return h.catchUp(ctx)
	}
	at := time.Now()
	h.checkedAt = at
	select {
	case <-h.look: // this read answers the call of Look
	default:
	}
	state, err := h.readState(ctx)
	if err != nil {
		return err
	}
	h.freshness.setComplete(at.Add(-state.Behind))
	if state.Behind > pendingAfter && len(h.pendingHooks) > 0 {
		return h.readPending(ctx)
	}
	h.freshness.setSeen(at)
	return nil
}

// readState reads the state of the log, and the events up to its head.
func (h *Hub) readState(ctx context.Context) (State, error) {
	epoch := h.epoch()
	if h.Head().Timeline == "" { // before the first cursor is given out or taken
		if err := h.verifyPlace(ctx, epoch); err != nil {
			return State{}, err
		}
	}
	state, err := h.cfg.Reader.State(ctx)
	if err != nil {
		return state, err
	}
	if state, err = h.verifyContinuity(ctx, state); err != nil {
		return state, err
	}
	if err := h.verifyPlace(ctx, epoch); err != nil {
		return state, err
	}
	switch had := h.Head(); {
	case state.Timeline != had.Timeline || state.Head < had.Position:
		return state, h.adoptState(ctx, state)
	case state.Head > had.Position:
		return state, h.catchUp(ctx)
	}
	return state, nil
}

// pendingAfter is how far the sequencer must be behind before events without a position are read:
// further than it ever is while it runs.
const pendingAfter = 250 * time.Millisecond

// readPending passes the events on that have no position yet. An event that gets its position
// between the two reads is in the second.
func (h *Hub) readPending(ctx context.Context) error {
	at := time.Now()
	events, all, err := h.cfg.Reader.pending(ctx)
	if err != nil {
		return err
	}
	for _, fn := range h.pendingHooks {
		fn(events)
	}
	if _, err := h.readState(ctx); err != nil {
		return err
	}
	if all {
		h.freshness.setSeen(at)
	}
	return nil
}

// catchUp reads to the end of the log.
func (h *Hub) catchUp(ctx context.Context) error {
	limit := ShrinkBatch(h.cfg.Batch, h.failures)
	for {
		found, err := h.cfg.Reader.ReadAfter(ctx, h.Head().Position, limit)
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

// adoptState takes timeline and head over at the first read and after a restore: then
// subscriptions of another timeline or beyond the head end, since the events that they have
// returned may never have happened.
func (h *Hub) adoptState(ctx context.Context, s State) (err error) {
	if h.headID, err = h.headEvent(ctx, s); err != nil {
		return err
	}
	h.callDeliverHooks(nil, true)
	h.mu.Lock()
	restored := h.timeline != ""
	h.timeline, h.head, h.ring, h.bytes = s.Timeline, s.Head, nil, 0
	for _, sub := range h.subs {
		sub.lost = restored && (sub.timeline != s.Timeline || sub.position > s.Head)
	}
	var all wakeUps
	for _, c := range h.groups {
		all.addGroup(c, 0)
		c.checkedAt = 0 // the same position will be another event
	}
	h.mu.Unlock()
	all.wakeAll()
	return nil
}

// deliver appends the events to the ring and wakes the groups that they match.
func (h *Hub) deliver(ctx context.Context, events []*event.Event) error {
	if len(events) == 0 {
		return nil
	}
	had, first, last := h.Head(), events[0].Cursor, events[len(events)-1].Cursor
	if first.Timeline != had.Timeline {
		return errors.New("the log has another timeline than before")
	}
	blank, err := h.readRedacted(ctx, events)
	if err != nil {
		return err
	}
	gap := first.Position != had.Position+1 // retention has removed the events between
	h.unknown.count(events)
	h.callDeliverHooks(events, gap)
	h.mu.Lock()
	if gap {
		h.ring, h.bytes = nil, 0
	}
	h.replaceRedacted(blank)
	h.head, h.headID = last.Position, events[len(events)-1].ID
	h.appendToRing(events)
	woken := h.notifyGroups(events, had.Position)
	h.mu.Unlock()
	woken.wakeAll()
	return nil
}

// notifyGroups collects the wake-ups of the groups that match one of the events; had is the
// head before them. A subscription that had read up to there and does not match advances
// without waking. The caller holds the lock and closes the channels without it.
func (h *Hub) notifyGroups(events []*event.Event, had event.Position) (woken wakeUps) {
	for _, s := range h.subs {
		if s.rightsChanged() {
			if c := s.group; s.regroup() {
				woken.addGroup(c, h.head) // the channel that it waits on
			}
		}
		if s.group.matches(events) {
			woken.addGroup(s.group, h.head)
		} else if s.timeline == h.timeline && s.position >= had {
			s.position = max(s.position, h.head)
		}
	}
	return woken
}

// appendToRing appends events and drops the oldest beyond its bounds.
func (h *Hub) appendToRing(events []*event.Event) {
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
