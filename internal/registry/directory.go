package registry

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// staleAfter is how long a node may not have read the log before its directory
// counts as stale. On a quiet log it reads once a second.
const staleAfter = 3 * time.Second

// Directory is the in-memory registry of a node. It is loaded from the database, then follows
// the log; the node applies its own changes at once. Without the database it serves the last
// known state and reports that it is stale.
//
// What it returns is shared and must not be changed. It is safe for concurrent
// use.
type Directory struct {
	store  Store
	reader LogReader
	now    func() time.Time
	log    *slog.Logger
	reload chan struct{}
	closed []func(name string) // see OnServiceClosed

	mu         sync.RWMutex
	byName     map[string]*entry
	services   map[uid.Service]*entry
	instances  map[uid.Instance]*Instance
	leases     map[uid.Instance]Lease
	names      []string  // sorted
	readAt     time.Time // when the registry was last loaded
	gaps       int       // in the delivered events
	closedGaps int       // gaps that a later load has closed
	removed    [2]map[uid.Instance]struct{}
}

// LogReader says how far a node has read the log; an eventlog.Hub implements it.
type LogReader interface {
	// Lag returns how long ago the node had read the log to its end.
	Lag() time.Duration
	// Head returns the cursor up to which all events have been delivered; zero
	// before the first.
	Head() event.Cursor
}

// NewDirectory returns a Directory that is empty until Run is called.
func NewDirectory(store Store, reader LogReader, now func() time.Time, log *slog.Logger) *Directory {
	d := &Directory{store: store, reader: reader, now: now, log: log, reload: make(chan struct{}, 1)}
	d.reset()
	return d
}

func (d *Directory) reset() {
	d.byName, d.services, d.instances = map[string]*entry{}, map[uid.Service]*entry{}, map[uid.Instance]*Instance{}
	d.leases, d.names = map[uid.Instance]Lease{}, nil
	d.removed = [2]map[uid.Instance]struct{}{{}, {}}
}

// Run loads the registry, and again whenever it may have missed something, until
// ctx is cancelled. A failed load is logged and tried again.
func (d *Directory) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.Load(ctx); err != nil && ctx.Err() == nil {
			d.log.ErrorContext(ctx, "loading the registry failed; the directory serves the last known state", "error", err)
			backoff.Sleep(ctx, time.Second)
			continue
		}
		select {
		case <-ctx.Done():
		case <-d.reload:
		}
	}
	return nil
}

// Load reads the whole registry. Events applied meanwhile are newer and stay.
func (d *Directory) Load(ctx context.Context) error {
	before, gaps := d.knownVersions()
	began := d.now()
	services, instances, err := d.store.Load(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(instances, func(a, b *Instance) int { return strings.Compare(a.InstanceID, b.InstanceID) }) // so that each insert appends
	public := d.publicServices()
	defer func() { d.notifyClosed(public) }() // without the lock
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readAt, d.closedGaps = began, gaps
	d.removeMissing(services, instances, before)
	for _, s := range services {
		d.putService(s)
	}
	for _, i := range instances {
		d.putInstance(i)
	}
	return nil
}

// versions are those of the entities in a directory.
type versions struct {
	services  map[uid.Service]int
	instances map[uid.Instance]int
}

// knownVersions also returns how many gaps there have been.
func (d *Directory) knownVersions() (v versions, gaps int) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v = versions{make(map[uid.Service]int, len(d.services)), make(map[uid.Instance]int, len(d.instances))}
	for id, e := range d.services {
		v.services[id] = e.service.Version
	}
	for id, i := range d.instances {
		v.instances[id] = i.Version
	}
	return v, d.gaps
}

// removeMissing removes entities that were there before the load, have not changed since,
// and were not loaded.
func (d *Directory) removeMissing(services []*Service, instances []*Instance, before versions) {
	there := make(map[uid.Instance]bool, len(instances))
	for _, i := range instances {
		there[i.ID] = true
	}
	for id, version := range before.instances {
		if i := d.instances[id]; i != nil && !there[id] && i.Version == version {
			d.removeInstance(i)
		}
	}
	live := make(map[uid.Service]bool, len(services))
	for _, s := range services {
		live[s.ID] = true
	}
	for id, version := range before.services {
		if e := d.services[id]; e != nil && !live[id] && e.service.Version == version && len(e.instances) == 0 {
			d.removeService(e)
		}
	}
}

// ApplyEvents applies events of the log, in their order; a gap says that some may be missing
// before them. It reads nothing, as events carry their whole subjects.
func (d *Directory) ApplyEvents(events []*event.Event, gap bool) {
	if gap {
		d.mu.Lock()
		d.gaps++
		d.mu.Unlock()
		select {
		case d.reload <- struct{}{}:
		default:
		}
	}
	for _, e := range events {
		switch e.Type {
		case EventServiceRegistered, EventServiceUpdated, EventServiceDeregistered:
			s, err := serviceFromEvent(e)
			d.applyEvent(e, s, nil, err)
		case EventInstanceRegistered, EventInstanceStatusChanged, EventInstanceDeregistered:
			i, err := instanceFromEvent(e)
			d.applyEvent(e, nil, i, err)
		default: // not of the registry
		}
	}
}

func (d *Directory) applyEvent(e *event.Event, s *Service, i *Instance, err error) {
	switch {
	case err != nil:
		d.log.Error("an event of the registry cannot be read", "event", string(e.ID), "error", err)
	case s != nil:
		d.ApplyService(s)
	case i != nil:
		d.ApplyInstance(i)
	}
}

// Cursor returns a cursor of the log such that the Directory holds all events up to there from
// now on; nil while it may be missing some. A caller that reads the cursor first and the registry
// then, and follows the log after the cursor, misses nothing.
func (d *Directory) Cursor() *event.Cursor {
	head := d.reader.Head() // first: it moves after the events were applied
	d.mu.RLock()
	defer d.mu.RUnlock()
	if head == (event.Cursor{}) || d.closedGaps != d.gaps {
		return nil
	}
	return &head
}

// ApplyService applies a service as it is after a change. An older version than the
// known one is ignored.
func (d *Directory) ApplyService(s *Service) {
	d.mu.Lock()
	d.putService(s)
	d.mu.Unlock()
	if !s.Public || s.Deregistered {
		d.notifyClosed([]string{s.Name})
	}
}

// OnServiceClosed has fn called with the name of a service after a change with which anonymous callers may not call it, perhaps
// repeatedly. fn must not block. Call it before Run.
func (d *Directory) OnServiceClosed(fn func(name string)) { d.closed = append(d.closed, fn) }

// publicServices returns the names of the services that are public.
func (d *Directory) publicServices() (names []string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for name, e := range d.byName {
		if e.service.Public {
			names = append(names, name)
		}
	}
	return names
}

// notifyClosed calls the functions of OnServiceClosed for those of the services that are not public.
func (d *Directory) notifyClosed(names []string) {
	for _, name := range names {
		if s := d.Service(name); s != nil && s.Public {
			continue
		}
		for _, fn := range d.closed {
			fn(name)
		}
	}
}

// ApplyInstance is ApplyService for an instance.
func (d *Directory) ApplyInstance(i *Instance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putInstance(i)
}

func (d *Directory) putService(s *Service) {
	e := d.services[s.ID]
	switch {
	case e != nil && e.service.Version >= s.Version:
		return
	case s.Deregistered:
		if e != nil {
			for _, i := range e.instances {
				d.removeInstance(i)
			}
			e.service = s
			d.hideService(s.Name)
		} else {
			d.services[s.ID] = &entry{service: s, instances: map[string]*Instance{}}
		}
		return
	case e == nil:
		e = &entry{instances: map[string]*Instance{}}
		d.services[s.ID] = e
	}
	e.service, e.set, e.previous = s, nil, nil
	if d.byName[s.Name] == nil {
		d.byName[s.Name] = e
		d.names = insertSorted(d.names, s.Name)
	}
}

// hideService removes a deregistered service from lookups. Its entry stays as a tombstone:
// its version tells old events from new.
func (d *Directory) hideService(name string) {
	delete(d.byName, name)
	d.names = deleteSorted(d.names, name)
}

func (d *Directory) removeService(e *entry) {
	d.hideService(e.service.Name)
	delete(d.services, e.service.ID)
}

func (d *Directory) putInstance(i *Instance) {
	if known := d.instances[i.ID]; known != nil && known.Version >= i.Version {
		return
	}
	if i.Removed {
		d.removeInstance(i)
		return
	}
	e := d.services[i.ServiceID]
	if e == nil || e.service.Deregistered || d.wasRemoved(i.ID) {
		return
	}
	e.putInstance(i)
	d.instances[i.ID] = i
	if _, ok := d.leases[i.ID]; !ok {
		d.leases[i.ID] = Lease{ExpiresAt: i.UpdatedAt.Add(i.TTL), SeenAt: i.UpdatedAt}
	}
}

func (d *Directory) removeInstance(i *Instance) {
	d.rememberRemoved(i.ID)
	delete(d.instances, i.ID)
	delete(d.leases, i.ID)
	if e := d.services[i.ServiceID]; e != nil && e.instances[i.InstanceID] != nil && e.instances[i.InstanceID].ID == i.ID {
		e.removeInstance(i.InstanceID)
	}
}

// maxRemoved is how many removed instances are remembered at least, so that late
// events do not bring them back.
const maxRemoved = 50_000

func (d *Directory) rememberRemoved(id uid.Instance) {
	if len(d.removed[0]) >= maxRemoved {
		d.removed[0], d.removed[1] = map[uid.Instance]struct{}{}, d.removed[0]
	}
	d.removed[0][id] = struct{}{}
}

func (d *Directory) wasRemoved(id uid.Instance) bool {
	_, young := d.removed[0][id]
	_, old := d.removed[1][id]
	return young || old
}

// Service returns the service of the name, nil if there is none.
func (d *Directory) Service(name string) *Service {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e := d.byName[name]; e != nil {
		return e.service
	}
	return nil
}

// ServiceByID returns the service, nil if there is none or it was deregistered.
func (d *Directory) ServiceByID(id uid.Service) *Service {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e := d.services[id]; e != nil && !e.service.Deregistered {
		return e.service
	}
	return nil
}

// Services returns all services by name.
func (d *Directory) Services() []*Service {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]*Service, len(d.names))
	for n, name := range d.names {
		all[n] = d.byName[name].service
	}
	return all
}

// Instance returns the instance of the ids that its owner uses, nil if there is
// none.
func (d *Directory) Instance(service, instanceID string) *Instance {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e := d.byName[service]; e != nil {
		return e.instances[instanceID]
	}
	return nil
}

// InstanceByID returns the instance, nil if there is none.
func (d *Directory) InstanceByID(id uid.Instance) *Instance {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.instances[id]
}

// Instances returns the instances of a service by the ids that their owners use.
func (d *Directory) Instances(id uid.Service) []*Instance {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.services[id]
	if e == nil {
		return nil
	}
	all := make([]*Instance, len(e.ids))
	for n, name := range e.ids {
		all[n] = e.instances[name]
	}
	return all
}

// Count returns how many services there are, and how many instances.
func (d *Directory) Count() (services, instances int) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.byName), len(d.instances)
}

// CountInstances returns how many instances the service of the name has.
func (d *Directory) CountInstances(name string) int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.byName[name]
	if e == nil {
		return 0
	}
	return len(e.instances)
}

// Set returns the service of the name with the instances that calls may go to;
// nil if there is no such service. It is the same Set as long as nothing changes.
func (d *Directory) Set(name string) *Set {
	d.mu.RLock()
	if e := d.byName[name]; e != nil && e.set != nil {
		defer d.mu.RUnlock()
		return e.set
	}
	d.mu.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.byName[name]
	if e == nil {
		return nil
	}
	return e.currentSet(d.now())
}

// Health sums up the service, and says why it is degraded if it is.
func (d *Directory) Health(id uid.Service) (Health, *Degraded) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.services[id]
	if e == nil {
		return HealthDown, nil
	}
	lag := min(d.reader.Lag(), d.now().Sub(d.readAt).Abs()) // the log is first read after the load
	switch {
	case e.service.DegradedSince != nil:
		return HealthDegraded, &Degraded{MassFailure, *e.service.DegradedSince, e.passing}
	case lag > staleAfter:
		return HealthDegraded, &Degraded{Stale, d.now().Add(-lag), e.passing}
	case e.passing > 0:
		return HealthHealthy, nil
	default:
		return HealthDown, nil
	}
}

// Lease returns an instance's lease as this node knows it: other nodes may have received
// later renewals.
func (d *Directory) Lease(id uid.Instance) Lease {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.leases[id]
}

// RecordRenewal records a renewal that this node received.
func (d *Directory) RecordRenewal(id uid.Instance, l Lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.instances[id]; known {
		d.leases[id] = l
	}
}
