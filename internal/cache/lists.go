package cache

import (
	"context"
	"encoding/json"
	"strconv"
	"sync/atomic"

	"github.com/backplane-dev/backplane/internal/monotime"
	"github.com/backplane-dev/backplane/internal/page"
)

// lists caches pages as ids, and counts, by the arguments of the query. A change of any row of the entity
// outdates them, so the key holds the entity's version: the number of its known changes, read before the
// query. The filter of a query includes what the caller may see.
//
// Lists stay in process memory: every write of their entity on any node would have to invalidate them in
// Redis. See decision 52.
type lists struct {
	cache    *Cache
	changes  map[string]*atomic.Uint64 // by entity; complete before the first row is invalidated
	all      atomic.Uint64             // invalidations of everything
	held     *region[*list]
	inFlight singleflight[string, *list]
	count    counters
}

// list is a page of ids, or a count.
type list struct {
	ids     []string
	cursors []string
	hasNext bool
	hasPrev bool
	whole   bool
	count   int
	expires int64
	bytes   uint32
}

// weight implements held.
func (v *list) weight() uint32 { return v.bytes }

// maxListKey is the bytes of the arguments; queries with longer ones are not cached.
const maxListKey = 2000

func newLists(c *Cache) *lists {
	return &lists{
		cache: c, changes: make(map[string]*atomic.Uint64),
		held: newRegion[*list](c.memory, nil), inFlight: newSingleflight[string, *list](),
	}
}

// keep keeps a list that was just read.
func (l *lists) keep(key string, v *list) {
	n := entryOverhead + len(key)
	for i := range v.ids {
		n += len(v.ids[i]) + len(v.cursors[i]) + 32
	}
	v.bytes = uint32(n) //nolint:gosec // a page is short
	v.expires = monotime.Now() + int64(l.cache.cfg.TTL)
	l.held.set(key, v)
}

// registerEntity makes lists of an entity cacheable.
func (l *lists) registerEntity(entity string) { l.changes[entity] = &atomic.Uint64{} }

// invalidateEntity invalidates all lists of an entity.
func (l *lists) invalidateEntity(entity string) {
	if n := l.changes[entity]; n != nil {
		n.Add(1)
	}
}

func (l *lists) invalidateAll() { l.all.Add(1) }

// entityVersion names the current state of the lists of an entity.
func (l *lists) entityVersion(entity string) string {
	return strconv.FormatUint(l.all.Load(), 36) + "." + strconv.FormatUint(l.changes[entity].Load(), 36)
}

// invalidateOlder invalidates the lists of an entity if they may be older than the result of a query:
// of one that began at another version, or that bypassed the cache, whose version is empty. Else a
// client could see less in the same list than it did before.
func (l *lists) invalidateOlder(entity, version string) {
	if l.entityVersion(entity) != version {
		l.invalidateEntity(entity)
	}
}

// listKey is the key of a list; empty if it is too long to be cached.
func listKey(entity, kind, version string, args ...any) string {
	b, err := json.Marshal(args)
	if err != nil || len(b) > maxListKey {
		return ""
	}
	return entity + " " + kind + " " + version + " " + string(b)
}

// readList returns the cached list, or reads it by query. Concurrent reads of one list share the result, which
// no caller changes.
func (l *lists) readList(ctx context.Context, key string, query func(context.Context) (*list, error)) (*list, error) {
	if v, ok := l.held.get(key); ok && v.expires > monotime.Now() {
		l.count.hits.Add(1)
		return v, nil
	}
	l.count.misses.Add(1)
	found := make(map[string]*list, 1)
	err := l.inFlight.readKeys(ctx, []string{key}, true, found, listReader{l, query})
	return found[key], err
}

// listReader reads one list.
type listReader struct {
	lists *lists
	query func(context.Context) (*list, error)
}

func (listReader) newToken() fillToken { return 0 }

// isCurrent implements batchReader: a list of another version has another key.
func (listReader) isCurrent(string, fillToken) bool { return true }

func (r listReader) readBatch(ctx context.Context, keys []string, _ bool, _ fillToken) (map[string]*list, error) {
	v, err := r.query(ctx)
	if err != nil {
		return nil, err
	}
	l := r.lists
	l.count.reads.Add(1)
	l.keep(keys[0], v)
	return map[string]*list{keys[0]: v}, nil
}

// readPage reads a page: its ids from the cached list, its rows by id.
func (t *table[K, V]) readPage(ctx context.Context, query func(context.Context) (page.Page[V], error), args ...any) (page.Page[V], error) {
	l := t.cache.lists
	if !t.cache.isLive() {
		return t.queryPage(ctx, "", query)
	}
	version := l.entityVersion(t.name)
	key := listKey(t.name, "page", version, args...)
	if key == "" {
		return t.queryPage(ctx, version, query)
	}
	var fresh *page.Page[V]
	held, err := l.readList(ctx, key, func(ctx context.Context) (*list, error) {
		p, err := t.queryPage(ctx, version, query)
		if err != nil {
			return nil, err
		}
		fresh = &p
		return t.listOf(p), nil
	})
	switch {
	case err != nil:
		return page.Page[V]{}, err
	case fresh != nil:
		return *fresh, nil
	}
	return t.expandPage(ctx, held, version, query)
}

// queryPage runs the query of a list, begun at the version, and keeps its rows.
func (t *table[K, V]) queryPage(ctx context.Context, version string, query func(context.Context) (page.Page[V], error)) (page.Page[V], error) {
	token := t.newToken()
	p, err := query(ctx)
	t.cache.lists.invalidateOlder(t.name, version)
	for _, row := range p.Items {
		t.fill(t.id(row), row, token)
	}
	return p, err
}

// readPages reads a page for each parent, as readPage does: those that are not cached in one query.
func readPages[P ~string, K ~string, V any](
	ctx context.Context, t *table[K, V], parents []P, query func(context.Context, []P) (map[P]page.Page[V], error), args ...any,
) (map[P]page.Page[V], error) {
	l := t.cache.lists
	version, missing, held := "", parents, map[P]*list{}
	if t.cache.isLive() {
		version = l.entityVersion(t.name)
		missing = nil
		for _, id := range parents {
			if v, ok := l.held.get(listKey(t.name, "page of "+string(id), version, args...)); ok && v.expires > monotime.Now() {
				held[id] = v
			} else {
				missing = append(missing, id)
			}
		}
	}
	l.count.hits.Add(uint64(len(held)))
	l.count.misses.Add(uint64(len(missing)))
	pages, gone, err := expandPages(ctx, t, held)
	if missing = append(missing, gone...); err != nil || len(missing) == 0 {
		return pages, err
	}
	token := t.newToken()
	read, err := query(ctx, missing)
	l.invalidateOlder(t.name, version)
	l.count.reads.Add(1)
	for id, p := range read {
		pages[id] = p
		for _, row := range p.Items {
			t.fill(t.id(row), row, token)
		}
		if key := listKey(t.name, "page of "+string(id), version, args...); err == nil && version != "" && key != "" {
			l.keep(key, t.listOf(p))
		}
	}
	return pages, err
}

// expandPages is expandPage for the pages of several parents. Those that have lost a row are gone.
func expandPages[P ~string, K ~string, V any](ctx context.Context, t *table[K, V], held map[P]*list) (pages map[P]page.Page[V], gone []P, err error) {
	var ids []K
	for _, v := range held {
		for _, id := range v.ids {
			ids = append(ids, K(id))
		}
	}
	pages = make(map[P]page.Page[V], len(held))
	var found map[K]V
	if len(ids) > 0 {
		if found, err = t.readByIDs(ctx, ids); err != nil {
			return pages, nil, err
		}
	}
	for parent, v := range held {
		p := page.Page[V]{Items: make([]V, 0, len(v.ids)), Cursors: v.cursors, HasNext: v.hasNext, HasPrev: v.hasPrev, Whole: v.whole}
		for _, id := range v.ids {
			if row, ok := found[K(id)]; ok {
				p.Items = append(p.Items, row)
			}
		}
		if len(p.Items) < len(v.ids) {
			gone = append(gone, parent)
			continue
		}
		pages[parent] = p
	}
	return pages, gone, nil
}

// listOf returns a page as ids.
func (t *table[K, V]) listOf(p page.Page[V]) *list {
	v := &list{cursors: p.Cursors, hasNext: p.HasNext, hasPrev: p.HasPrev, whole: p.Whole}
	for _, row := range p.Items {
		v.ids = append(v.ids, string(t.id(row)))
	}
	return v
}

// expandPage returns a cached page with its rows as they are now. If a row is gone the page has changed,
// and the query runs again.
func (t *table[K, V]) expandPage(ctx context.Context, held *list, version string, query func(context.Context) (page.Page[V], error)) (page.Page[V], error) {
	ids := make([]K, len(held.ids))
	for i, id := range held.ids {
		ids[i] = K(id)
	}
	found, err := t.readByIDs(ctx, ids)
	if err != nil {
		return page.Page[V]{}, err
	}
	p := page.Page[V]{Items: make([]V, len(ids)), Cursors: held.cursors, HasNext: held.hasNext, HasPrev: held.hasPrev, Whole: held.whole}
	for i, id := range ids {
		v, ok := found[id]
		if !ok {
			return t.queryPage(ctx, version, query)
		}
		p.Items[i] = v
	}
	return p, nil
}

// readCount returns the cached count, or reads it by query.
func (t *table[K, V]) readCount(ctx context.Context, query func(context.Context) (int, error), args ...any) (int, error) {
	l := t.cache.lists
	version := "" // of no state
	if t.cache.isLive() {
		version = l.entityVersion(t.name)
	}
	read := func(ctx context.Context) (*list, error) {
		n, err := query(ctx)
		l.invalidateOlder(t.name, version)
		return &list{count: n}, err
	}
	key := listKey(t.name, "count", version, args...)
	if version == "" || key == "" {
		v, err := read(ctx)
		return v.count, err
	}
	v, err := l.readList(ctx, key, read)
	if err != nil {
		return 0, err
	}
	return v.count, nil
}
