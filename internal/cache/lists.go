package cache

import (
	"context"
	"encoding/json"
	"strconv"
	"sync/atomic"

	"github.com/maypok86/otter/v2"

	"github.com/backplane-dev/backplane/internal/page"
)

// lists keeps pages of ids, and counts, by what was asked for. A page is good
// until anything of its entity changes, so its key holds how often that has
// happened: the count of before the query, which is right whatever happens
// meanwhile. What visibility allows is part of the filter that a domain asks with.
//
// They stay in the process: a list is outdated by each write of its entity on any
// node, so that Redis would have to be told of every one of them. See decision 52.
type lists struct {
	c       *Cache
	changes map[string]*atomic.Uint64 // by entity
	all     atomic.Uint64             // changes of everything
	held    *otter.Cache[string, *list]
	flights flights[string, *list]
	count   counters
}

// list is a page of ids, or a count.
type list struct {
	ids     []string
	cursors []string
	hasNext bool
	hasPrev bool
	count   int
	expires int64
}

const (
	listShare = 0.1  // of the bytes in process memory
	maxAsked  = 2000 // bytes of what is asked for; longer is not asked again
)

func newLists(c *Cache) *lists {
	l := &lists{c: c, changes: make(map[string]*atomic.Uint64), flights: newFlights[string, *list]()}
	for _, entity := range []string{entityUser, entityProduct, entityOrder} {
		l.changes[entity] = &atomic.Uint64{}
	}
	l.held = otter.Must(&otter.Options[string, *list]{
		MaximumWeight: uint64(float64(c.cfg.Bytes) * listShare),
		Weigher: func(asked string, v *list) uint32 {
			n := entryOverhead + len(asked)
			for i := range v.ids {
				n += len(v.ids[i]) + len(v.cursors[i]) + 32
			}
			return uint32(n) //nolint:gosec // a page is short
		},
	})
	return l
}

func (l *lists) bump(entity string) {
	if n := l.changes[entity]; n != nil {
		n.Add(1)
	}
}

func (l *lists) bumpAll() { l.all.Add(1) }

func (l *lists) close() { l.held.StopAllGoroutines() }

// stamp names the state that lists of an entity are of.
func (l *lists) stamp(entity string) string {
	return strconv.FormatUint(l.all.Load(), 36) + "." + strconv.FormatUint(l.changes[entity].Load(), 36)
}

// overtaken ends the worth of what is held of an entity if it may be older than
// what a query has shown: one that ran on while lists began to be kept for a later
// state, or that passed the cache by, for which the stamp is "". Else the same
// list could show less to a client than it did before.
func (l *lists) overtaken(entity, stamp string) {
	if l.stamp(entity) != stamp {
		l.bump(entity)
	}
}

// asked is what a list is kept by: what is asked for, and of which state. It is
// "" for what is too long to be kept.
func asked(entity, what, stamp string, args ...any) string {
	b, err := json.Marshal(args)
	if err != nil || len(b) > maxAsked {
		return ""
	}
	return entity + " " + what + " " + stamp + " " + string(b)
}

// read returns what is held, or reads it by query. Equal reads at the same time
// are one; their ids and counts are shared, not changed.
func (l *lists) read(ctx context.Context, asked string, query func(context.Context) (*list, error)) (*list, error) {
	if v, ok := l.held.GetIfPresent(asked); ok && v.expires > l.c.nanos() {
		l.count.hits.Add(1)
		return v, nil
	}
	l.count.misses.Add(1)
	found := make(map[string]*list, 1)
	err := l.flights.fetch(ctx, []string{asked}, true, found, listTrip{l, query})
	return found[asked], err
}

// listTrip reads one list.
type listTrip struct {
	l     *lists
	query func(context.Context) (*list, error)
}

func (t listTrip) take() token { return 0 }

// isCurrent implements trip: a list of another state is asked for by another key.
func (t listTrip) isCurrent(string, token) bool { return true }

func (t listTrip) fetch(ctx context.Context, asked []string, _ bool, _ token) (map[string]*list, error) {
	v, err := t.query(ctx)
	if err != nil {
		return nil, err
	}
	t.l.count.reads.Add(1)
	v.expires = t.l.c.nanos() + int64(t.l.c.cfg.TTL)
	t.l.held.Set(asked[0], v)
	return map[string]*list{asked[0]: v}, nil
}

// pages reads a page of an entity: its ids from what is held, its rows by id.
func pages[K ~string, V any](ctx context.Context, t *table[K, V], idOf func(V) K, query func(context.Context) (page.Page[V], error), args ...any,
) (page.Page[V], error) {
	if !t.c.live() {
		return t.listed(ctx, "", idOf, query)
	}
	stamp := t.c.lists.stamp(t.entity)
	key := asked(t.entity, "page", stamp, args...)
	if key == "" {
		return t.listed(ctx, stamp, idOf, query)
	}
	var fresh *page.Page[V]
	held, err := t.c.lists.read(ctx, key, func(ctx context.Context) (*list, error) {
		p, err := t.listed(ctx, stamp, idOf, query)
		if err != nil {
			return nil, err
		}
		fresh = &p
		v := &list{cursors: p.Cursors, hasNext: p.HasNext, hasPrev: p.HasPrev}
		for _, item := range p.Items {
			v.ids = append(v.ids, string(idOf(item)))
		}
		return v, nil
	})
	switch {
	case err != nil:
		return page.Page[V]{}, err
	case fresh != nil:
		return *fresh, nil
	}
	return t.filled(ctx, held, stamp, idOf, query)
}

// listed runs the query of a list that was asked for at the stamp, and keeps its
// rows.
func (t *table[K, V]) listed(ctx context.Context, stamp string, idOf func(V) K, query func(context.Context) (page.Page[V], error)) (page.Page[V], error) {
	taken := t.c.clock.take()
	p, err := query(ctx)
	t.c.lists.overtaken(t.entity, stamp)
	for _, item := range p.Items {
		t.offer(idOf(item), item, taken)
	}
	return p, err
}

// filled is a held page with its rows as they are now. If one is gone, it is not
// this page any more.
func (t *table[K, V]) filled(ctx context.Context, held *list, stamp string, idOf func(V) K, query func(context.Context) (page.Page[V], error),
) (page.Page[V], error) {
	ids := make([]K, len(held.ids))
	for i, id := range held.ids {
		ids[i] = K(id)
	}
	found, err := t.byIDs(ctx, ids)
	if err != nil {
		return page.Page[V]{}, err
	}
	p := page.Page[V]{Items: make([]V, len(ids)), Cursors: held.cursors, HasNext: held.hasNext, HasPrev: held.hasPrev}
	for i, id := range ids {
		v, ok := found[id]
		if !ok {
			return t.listed(ctx, stamp, idOf, query)
		}
		p.Items[i] = v
	}
	return p, nil
}

// counted is a count from what is held, or by query.
func (c *Cache) counted(ctx context.Context, entity string, query func(context.Context) (int, error), args ...any) (int, error) {
	stamp := "" // which no state has
	if c.live() {
		stamp = c.lists.stamp(entity)
	}
	read := func(ctx context.Context) (*list, error) {
		n, err := query(ctx)
		c.lists.overtaken(entity, stamp)
		return &list{count: n}, err
	}
	key := asked(entity, "count", stamp, args...)
	if stamp == "" || key == "" {
		v, err := read(ctx)
		return v.count, err
	}
	v, err := c.lists.read(ctx, key, read)
	if err != nil {
		return 0, err
	}
	return v.count, nil
}
