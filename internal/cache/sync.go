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
	tick      = 250 * time.Millisecond // between looks at what goes without saying
	readBatch = 1000                   // events
	maxKeys   = 2000                   // of one script, about; Redis does nothing else meanwhile
)

// Run keeps floors short and Redis informed until ctx is cancelled, then returns
// nil. Call it once, after Follow.
func (c *Cache) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if c.remote.client != nil {
		g.Go(func() error { return c.remote.runFills(ctx) })
		g.Go(func() error { return c.remote.runFills(ctx) })
	}
	g.Go(func() error {
		c.keep(ctx)
		return nil
	})
	return g.Wait()
}

// keep settles, and tells Redis what the hub has read.
func (c *Cache) keep(ctx context.Context) {
	look, settle := time.NewTicker(tick), time.NewTicker(c.cfg.SettleTime)
	defer look.Stop()
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-settle.C:
			c.settle()
			continue
		case <-look.C:
		case <-c.remote.wake:
		}
		c.remote.inform(ctx)
	}
}

// enqueue notes events that Redis must hear of.
func (r *remote) enqueue(events []*event.Event) {
	if r.client == nil {
		return
	}
	r.mu.Lock()
	if r.behind = r.behind || len(r.pending) >= maxPending; !r.behind {
		r.pending = append(r.pending, events...)
	}
	r.mu.Unlock()
	signal(r.wake)
}

// forget keeps everybody from reading Redis until the hub has gone on from where
// it was, and Redis has heard of that.
func (r *remote) forget(was event.Cursor) {
	r.mu.Lock()
	r.stale, r.pending = &was, nil
	r.era.Store(nil)
	r.mu.Unlock()
	signal(r.wake)
}

// take returns the events that Redis has not been told of; behind says that there
// are others, which must be read again.
func (r *remote) take() (events []*event.Event, behind bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events, r.pending = r.pending, nil
	return events, r.behind
}

// inform tells Redis of what the hub has read. If that is not all that Redis has
// missed, or if Redis is not fit to be read, it sees to that.
func (r *remote) inform(ctx context.Context) {
	if r.client == nil {
		if at, ok := r.resume(); ok {
			r.c.synced(at.Position)
		}
		return
	}
	events, behind := r.take()
	if at := r.era.Load(); at != nil && !behind && !r.breaker.isOpen() {
		now, err := r.apply(ctx, *at, events)
		if len(events) == 0 || err == nil && now.generation == at.generation && now.place >= events[len(events)-1].Cursor.Position {
			return
		}
	}
	if err := r.sync(ctx); err != nil && ctx.Err() == nil {
		r.mu.Lock()
		r.behind = true
		r.mu.Unlock()
		r.c.log.DebugContext(ctx, "Redis is not up to date", "error", err)
	}
}

// resume returns where the hub is, and whether it has gone on since it may have
// missed events.
func (r *remote) resume() (at event.Cursor, ok bool) {
	hub := r.c.hub.Load()
	if hub == nil {
		return at, false
	}
	at = hub.Head()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale != nil && *r.stale == at || at.Timeline == "" {
		return at, false
	}
	if r.stale != nil && r.stale.Timeline != "" && r.stale.Timeline != at.Timeline {
		r.c.restored()
	}
	r.stale = nil
	return at, true
}

// sync makes Redis fit to be read: it tells it what the log says behind the place
// that Redis has heard of, up to where the hub is, or begins a new generation.
func (r *remote) sync(ctx context.Context) error {
	r.mu.Lock()
	r.behind, r.pending = false, nil // what comes from here on lies behind the head, or is told of twice
	r.mu.Unlock()
	head, ok := r.resume()
	if !ok {
		return errNotYet
	}
	now, err := r.where(ctx, head)
	if err != nil {
		return err
	}
	at := era{head.Timeline, now.generation}
	for now.place < head.Position {
		events, err := r.missed(ctx, now.place, head)
		if err != nil {
			return err
		}
		if events == nil {
			now, err = r.renew(ctx, at, at.generation, head.Position)
		} else {
			now, err = r.apply(ctx, at, events)
		}
		switch {
		case err != nil:
			return err
		case now.generation == "":
			return errReply
		}
		at.generation = now.generation
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	r.admit(ctx, head, at)
	return nil
}

var errNotYet = errors.New("the log has not been read yet")

// admit lets everybody read Redis, unless the hub may have missed events since.
func (r *remote) admit(ctx context.Context, head event.Cursor, at era) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale != nil {
		return
	}
	r.era.Store(&at)
	r.c.synced(head.Position)
	if r.breaker.reset() {
		r.c.log.InfoContext(ctx, "Redis answers again and is up to date")
	}
}

// where returns what Redis says of itself; if that is nothing, or more than the
// log has, a new generation begins.
func (r *remote) where(ctx context.Context, head event.Cursor) (told, error) {
	at := era{timeline: head.Timeline}
	limited, cancel := r.limit(ctx)
	defer cancel()
	meta, err := r.client.HMGet(limited, at.meta(), "g", "p").Result()
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		err = r.client.Del(limited, at.meta()).Err()
		meta = []any{nil, nil}
	}
	r.note(ctx, err)
	if err != nil {
		return told{}, err
	}
	generation, _ := meta[0].(string)
	text, _ := meta[1].(string)
	place, err := strconv.ParseInt(text, 10, 64)
	if err == nil && event.Position(place) > head.Position {
		state, err := r.events.State(ctx)
		if err != nil {
			return told{}, err
		}
		if state.Timeline != head.Timeline || state.Head < event.Position(place) {
			return r.renew(ctx, at, generation, head.Position)
		}
	}
	if generation == "" || err != nil {
		return r.renew(ctx, at, generation, head.Position)
	}
	return told{generation, event.Position(place)}, nil
}

// renew begins a generation, in place of the one that is expected to be there.
func (r *remote) renew(ctx context.Context, at era, expected string, place event.Position) (told, error) {
	now, _, err := r.run(ctx, renewScript, []string{at.meta()}, expected, strings.ToLower(rand.Text()[:13]), int64(place))
	if err == nil && now.generation != expected {
		r.renewed.Add(1)
	}
	return now, err
}

// missed returns the next events that Redis has not heard of; nil if there are
// too many, or if some are not kept any more.
func (r *remote) missed(ctx context.Context, place event.Position, head event.Cursor) ([]*event.Event, error) {
	if int64(head.Position-place) > int64(r.c.cfg.CatchUpLimit) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.c.cfg.RequestTime)
	defer cancel()
	events, err := r.events.Next(ctx, place, readBatch)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].Cursor != (event.Cursor{Timeline: head.Timeline, Position: place + 1}) {
		return nil, nil
	}
	r.caughtUp.Add(uint64(len(events)))
	return events, nil
}

// apply tells Redis of events, each of which follows the one before. It returns
// what Redis says of itself then.
func (r *remote) apply(ctx context.Context, at era, events []*event.Event) (now told, err error) {
	for len(events) > 0 {
		n, rows := r.batch(events)
		from, to := events[0].Cursor.Position-1, events[n-1].Cursor.Position
		if events[0].Cursor.Timeline != at.timeline || int(to-from) != n {
			return now, fmt.Errorf("%d events of %s lie between %d and %d", n, events[0].Cursor.Timeline, from, to)
		}
		keys, args := []string{at.meta()}, []any{at.generation, int64(from), int64(to), r.tombstoneLife().Milliseconds()}
		for k, version := range rows {
			keys, args = append(keys, at.key(k.entity, k.id)), append(args, version)
		}
		if now, _, err = r.run(ctx, applyScript, keys, args...); err != nil || now.generation != at.generation || now.place < to {
			return now, err
		}
		r.applied.Add(uint64(n)) //nolint:gosec // never negative
		events = events[n:]
	}
	return now, nil
}

// batch returns how many of the events go into one script, and what they touched.
func (r *remote) batch(events []*event.Event) (n int, rows map[key]int) {
	rows = make(map[key]int)
	for n < len(events) && (n == 0 || len(rows) < maxKeys) {
		for _, row := range rowsOf(events[n]) {
			if k := (key{row.Entity, row.ID}); r.c.tables[row.Entity] != nil {
				rows[k] = max(rows[k], row.Version)
			}
		}
		n++
	}
	return n, rows
}
