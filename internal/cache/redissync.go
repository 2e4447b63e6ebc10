package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/backplane-dev/backplane/internal/event"
)

const (
	syncInterval  = 250 * time.Millisecond // between checks without a signal
	readBatch     = 1000                   // events
	maxScriptKeys = 2000                   // approximate; Redis does nothing else while a script runs
)

// Run takes checkpoints and applies the log to Redis until ctx is cancelled, then returns nil. Call it
// once.
func (c *Cache) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if c.redis.client != nil {
		g.Go(func() error { return c.redis.runFills(ctx) })
		g.Go(func() error { return c.redis.runFills(ctx) })
	}
	g.Go(func() error {
		c.runMaintenance(ctx)
		return nil
	})
	return g.Wait()
}

// runMaintenance takes checkpoints, and applies to Redis what the hub has read.
func (c *Cache) runMaintenance(ctx context.Context) {
	check, checkpoint := time.NewTicker(syncInterval), time.NewTicker(c.cfg.CheckpointInterval)
	defer check.Stop()
	defer checkpoint.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-checkpoint.C:
			c.takeCheckpoint()
			continue
		case <-check.C:
		case <-c.redis.wake:
		}
		c.redis.applyPending(ctx)
	}
}

// enqueueEvents queues events to be applied to Redis.
func (r *redisLevel) enqueueEvents(events []*event.Event) {
	if r.client == nil {
		return
	}
	r.mu.Lock()
	if r.overflowed = r.overflowed || len(r.pending) >= maxPendingEvents; !r.overflowed {
		r.pending = append(r.pending, events...)
	}
	r.mu.Unlock()
	r.wake.Set()
}

// suspendReads stops all reads of Redis until the hub has gone on from its head, and the log is applied to
// Redis up to there.
func (r *redisLevel) suspendReads(head event.Cursor) {
	r.mu.Lock()
	r.gapAt, r.pending = &head, nil
	r.generation.Store(nil)
	r.mu.Unlock()
	r.wake.Set()
}

// takePending returns the queued events, and whether others had no room and must be read again.
func (r *redisLevel) takePending() (events []*event.Event, overflowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events, r.pending = r.pending, nil
	return events, r.overflowed
}

// applyPending applies the queued events to Redis. If Redis lacks others, or must not be read, it syncs.
func (r *redisLevel) applyPending(ctx context.Context) {
	if r.client == nil {
		if head, ok := r.headAfterGap(); ok {
			r.cache.resumeRedis(head.Position)
		}
		return
	}
	events, overflowed := r.takePending()
	if g := r.generation.Load(); g != nil && !overflowed && !r.breaker.isOpen() {
		state, err := r.applyEvents(ctx, *g, events)
		if len(events) == 0 || err == nil && state.generation == g.id && state.offset >= events[len(events)-1].Cursor.Position {
			return
		}
	}
	if err := r.syncWithLog(ctx); err != nil && ctx.Err() == nil {
		r.mu.Lock()
		r.overflowed = true
		r.mu.Unlock()
		r.cache.log.DebugContext(ctx, "Redis sync failed, will retry", "error", err)
	}
}

// headAfterGap returns the hub's head. It returns false if the hub may have missed events and has not
// gone on since.
func (r *redisLevel) headAfterGap() (head event.Cursor, ok bool) {
	hub := r.cache.hub
	if hub == nil {
		return head, false
	}
	head = hub.Head()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gapAt != nil && *r.gapAt == head || head.Timeline == "" {
		return head, false
	}
	if r.gapAt != nil && r.gapAt.Timeline != "" && r.gapAt.Timeline != head.Timeline {
		r.cache.resetTimeline()
	}
	r.gapAt = nil
	return head, true
}

var errLogNotRead = errors.New("the log has not been read yet")

// syncWithLog makes Redis readable: it applies the log after Redis's offset up to the hub's head, or begins a
// new generation.
func (r *redisLevel) syncWithLog(ctx context.Context) error {
	r.mu.Lock()
	r.overflowed, r.pending = false, nil // later events lie after the head, or are applied twice
	r.mu.Unlock()
	head, ok := r.headAfterGap()
	if !ok {
		return errLogNotRead
	}
	state, err := r.readState(ctx, head)
	if err != nil {
		return err
	}
	g := generation{head.Timeline, state.generation}
	for state.offset < head.Position {
		events, err := r.readMissed(ctx, state.offset, head)
		if err != nil {
			return err
		}
		if events == nil {
			state, err = r.renewGeneration(ctx, g, g.id, head.Position)
		} else {
			state, err = r.applyEvents(ctx, g, events)
		}
		switch {
		case err != nil:
			return err
		case state.generation == "":
			return errUnexpectedReply
		}
		g.id = state.generation
	}
	if err := r.loadScripts(ctx); err != nil {
		return err
	}
	r.resumeReads(ctx, head, g)
	return nil
}

// resumeReads lets readers read Redis, unless the hub may have missed events since.
func (r *redisLevel) resumeReads(ctx context.Context, head event.Cursor, g generation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gapAt != nil {
		return
	}
	r.generation.Store(&g)
	r.cache.resumeRedis(head.Position)
	if r.breaker.reset() {
		r.cache.log.InfoContext(ctx, "Redis answers again and is up to date, circuit breaker closed")
	}
}

// readState returns the state of Redis. It begins a new generation if there is none, or if its offset
// is beyond the log.
func (r *redisLevel) readState(ctx context.Context, head event.Cursor) (redisState, error) {
	g := generation{timeline: head.Timeline}
	limited, cancel := r.withTimeout(ctx)
	defer cancel()
	meta, err := r.client.HMGet(limited, g.metaKey(), "g", "p").Result()
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		err = r.client.Del(limited, g.metaKey()).Err()
		meta = []any{nil, nil}
	}
	r.recordResult(ctx, stateRead, err)
	if err != nil {
		return redisState{}, err
	}
	id, _ := meta[0].(string)
	text, _ := meta[1].(string)
	offset, err := strconv.ParseInt(text, 10, 64)
	if err == nil && event.Position(offset) > head.Position {
		state, err := r.cache.hub.Log().State(ctx)
		if err != nil {
			return redisState{}, err
		}
		if state.Timeline != head.Timeline || state.Head < event.Position(offset) {
			return r.renewGeneration(ctx, g, id, head.Position)
		}
	}
	if id == "" || err != nil {
		return r.renewGeneration(ctx, g, id, head.Position)
	}
	return redisState{id, event.Position(offset)}, nil
}

// renewGeneration begins a generation in place of the expected one. If another node was first, it returns that
// node's.
func (r *redisLevel) renewGeneration(ctx context.Context, g generation, expected string, offset event.Position) (redisState, error) {
	state, _, err := r.runScript(ctx, renewScript, []string{g.metaKey()}, expected, strings.ToLower(rand.Text()[:13]), int64(offset))
	if err == nil && state.generation != expected {
		r.renewed.Add(1)
	}
	return state, err
}

// readMissed returns the next events after the offset; nil if there are too many, or if retention has
// removed some.
func (r *redisLevel) readMissed(ctx context.Context, offset event.Position, head event.Cursor) ([]*event.Event, error) {
	if int64(head.Position-offset) > int64(r.cache.cfg.CatchUpLimit) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cache.cfg.RequestTime)
	defer cancel()
	events, err := r.cache.hub.Log().ReadAfter(ctx, offset, readBatch)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].Cursor != (event.Cursor{Timeline: head.Timeline, Position: offset + 1}) {
		return nil, nil
	}
	r.caughtUp.Add(uint64(len(events)))
	return events, nil
}

// applyEvents applies consecutive events to Redis. It returns the state of Redis after that.
func (r *redisLevel) applyEvents(ctx context.Context, g generation, events []*event.Event) (state redisState, err error) {
	for len(events) > 0 {
		n, rows := r.scriptBatch(events)
		from, to := events[0].Cursor.Position-1, events[n-1].Cursor.Position
		if events[0].Cursor.Timeline != g.timeline || int(to-from) != n {
			return state, fmt.Errorf("%d events of %s lie between %d and %d", n, events[0].Cursor.Timeline, from, to)
		}
		keys, args := []string{g.metaKey()}, []any{g.id, int64(from), int64(to), r.tombstoneLife().Milliseconds()}
		for k, version := range rows {
			keys, args = append(keys, g.rowKey(k.entity, k.id)), append(args, version)
		}
		if state, _, err = r.runScript(ctx, applyScript, keys, args...); err != nil || state.generation != g.id || state.offset < to {
			return state, err
		}
		r.applied.Add(uint64(n)) //nolint:gosec // never negative
		events = events[n:]
	}
	return state, nil
}

// scriptBatch returns how many of the events go into one script, and the versions of their rows.
func (r *redisLevel) scriptBatch(events []*event.Event) (n int, rows map[key]int) {
	rows = make(map[key]int)
	for n < len(events) && (n == 0 || len(rows) < maxScriptKeys) {
		for _, row := range r.cache.rowsOf(events[n]) {
			if k := (key{row.Entity, row.ID}); r.cache.tables[row.Entity] != nil {
				rows[k] = max(rows[k], row.Version)
			}
		}
		n++
	}
	return n, rows
}
