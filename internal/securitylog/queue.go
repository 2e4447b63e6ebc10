package securitylog

import (
	"slices"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/uid"
)

// queue holds the events that are to be stored, and counts equal ones. It is safe for concurrent use.
type queue struct {
	cfg Config

	mu       sync.Mutex
	groups   map[groupKey]*group
	networks map[string]int // groups of each network
	rows     []security.Event
}

// groupKey is what equal events have in common. A coarse key has less: type and network, or the type alone.
type groupKey struct {
	typ     security.EventType
	user    uid.User
	actor   string
	session uid.Session
	key     uid.APIKey
	detail  string
	network string // see auth.Client.Network: a client that has one IPv6 address has many
}

// group counts equal events within a window, which begins with the first of them. That one has a row of its own.
type group struct {
	ends time.Time
	rest security.Event // stands for all but the first; Count is 0 if there are none
}

func newQueue(cfg Config) *queue {
	return &queue{cfg: cfg, groups: map[groupKey]*group{}, networks: map[string]int{}}
}

// add queues the event, or counts it with equal ones. It returns what it queued.
func (q *queue) add(e security.Event, now time.Time) (queued []security.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := len(q.rows)
	key := q.keyOf(e)
	g := q.groups[key]
	if g != nil && !now.Before(g.ends) && q.endGroup(key, g) {
		g = nil
	}
	switch {
	case g != nil:
		g.count(key, e)
	case q.isFull():
		q.newGroup(key, now).count(key, e)
	default:
		q.newGroup(key, now)
		q.rows = append(q.rows, e)
	}
	return q.queuedSince(before)
}

func (q *queue) newGroup(key groupKey, now time.Time) *group {
	g := &group{ends: now.Add(q.cfg.Window)}
	q.groups[key] = g
	q.networks[key.network]++
	return g
}

func (q *queue) isFull() bool { return len(q.rows) >= q.cfg.Pending }

// queuedSince returns the rows from an index on. They are never changed, so they may be read without the lock.
func (q *queue) queuedSince(i int) []security.Event { return q.rows[i:len(q.rows):len(q.rows)] }

// keyOf returns the key of the event's group, a coarse one if its network or the node has too many groups.
func (q *queue) keyOf(e security.Event) groupKey {
	network := auth.Client{Address: e.Address}.Network()
	fine := groupKey{e.Type, e.UserID, e.Actor, e.SessionID, e.APIKeyID, e.Detail, network}
	if q.groups[fine] != nil || len(q.groups) < q.cfg.Groups && q.networks[network] < q.cfg.NetworkRows {
		return fine
	}
	coarse := groupKey{typ: e.Type, network: network}
	if q.groups[coarse] != nil || len(q.groups) < 2*q.cfg.Groups {
		return coarse
	}
	return groupKey{typ: e.Type}
}

// count adds an event to the rest. What the events of a coarse group do not have in common is left out.
func (g *group) count(key groupKey, e security.Event) {
	if g.rest.Count > 0 {
		g.rest.Count += e.Count
		g.rest.LastAt = e.LastAt
		return
	}
	g.rest = e
	g.rest.UserID, g.rest.Actor, g.rest.SessionID, g.rest.APIKeyID, g.rest.Detail = key.user, key.actor, key.session, key.key, key.detail
	if key.network == "" {
		g.rest.Address = ""
	}
}

// end queues the rests of the groups whose windows have ended, and returns what it queued. While the queue
// is full groups go on counting.
func (q *queue) end(now time.Time) (queued []security.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := len(q.rows)
	for key, g := range q.groups {
		if !now.Before(g.ends) {
			q.endGroup(key, g)
		}
	}
	return q.queuedSince(before)
}

// endAll queues the rests of all groups, however full the queue is, and returns what it queued.
func (q *queue) endAll() (queued []security.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := len(q.rows)
	for _, g := range q.groups {
		if g.rest.Count > 0 {
			q.rows = append(q.rows, g.rest)
		}
	}
	clear(q.groups)
	clear(q.networks)
	return q.queuedSince(before)
}

// endGroup queues the rest of the group and removes the group, unless the queue has no room for it.
func (q *queue) endGroup(key groupKey, g *group) (ended bool) {
	if g.rest.Count > 0 {
		if q.isFull() {
			return false
		}
		q.rows = append(q.rows, g.rest)
	}
	delete(q.groups, key)
	if q.networks[key.network]--; q.networks[key.network] == 0 {
		delete(q.networks, key.network)
	}
	return true
}

// take empties the queue.
func (q *queue) take() []security.Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	rows := q.rows
	q.rows = nil
	return rows
}

// putBack puts rows back that were taken, before those that were queued since, and returns how many
// events it dropped.
func (q *queue) putBack(rows []security.Event) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := slices.Concat(rows, q.rows)
	for _, e := range all[min(len(all), q.cfg.Pending):] {
		dropped += e.Count
	}
	q.rows = all[:min(len(all), q.cfg.Pending)]
	return dropped
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.rows)
}
