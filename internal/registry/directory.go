package registry

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// staleAfter is how long a node may not have read the log before what it knows
// counts as stale. On a quiet log it reads once a second.
const staleAfter = 3 * time.Second

// Directory is what a node knows of the registry: all of it, in memory. It is
// loaded from the database, then follows the log, and is at once told what the node itself
// changes. Without the database it goes on as it was and says that it is stale.
//
// What it returns is shared and must not be changed. It is safe for concurrent
// use.
type Directory struct {
	store  Store
	reader Reader
	now    func() time.Time
	log    *slog.Logger
	reload chan struct{}
	loaded chan struct{} // closed after the first load
	once   sync.Once

	mu        sync.RWMutex
	byName    map[string]*entry
	services  map[uid.Service]*entry
	instances map[uid.Instance]*Instance
	leases    map[uid.Instance]Lease
	names     []string  // sorted
	readAt    time.Time // when the registry was last loaded
	gaps      int       // in what was delivered
	closed    int       // gaps that a load has made good
	gone      [2]map[uid.Instance]struct{}
}

// Reader is how far a node has read the log: an eventlog.Hub.
type Reader interface {
	// Lag returns how long ago the node had read the log to its end.
	Lag() time.Duration
	// Head returns the place up to which all events have been delivered; zero
	// before the first.
	Head() event.Cursor
}

// NewDirectory returns a Directory that knows nothing until Run is called.
func NewDirectory(store Store, reader Reader, now func() time.Time, log *slog.Logger) *Directory {
	d := &Directory{store: store, reader: reader, now: now, log: log, reload: make(chan struct{}, 1), loaded: make(chan struct{})}
	d.clear()
	return d
}

func (d *Directory) clear() {
	d.byName, d.services, d.instances = map[string]*entry{}, map[uid.Service]*entry{}, map[uid.Instance]*Instance{}
	d.leases, d.names = map[uid.Instance]Lease{}, nil
	d.gone = [2]map[uid.Instance]struct{}{{}, {}}
}

// Run loads the registry, and again whenever it may have missed something, until
// ctx is cancelled. A failed load is logged and tried again.
func (d *Directory) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := d.Load(ctx); err != nil && ctx.Err() == nil {
			d.log.ErrorContext(ctx, "loading the registry failed; going on with what is known", "error", err)
			wait(ctx, time.Second)
			continue
		}
		select {
		case <-ctx.Done():
		case <-d.reload:
		}
	}
	return nil
}

// Load reads the whole registry. What is heard meanwhile is newer and stays.
func (d *Directory) Load(ctx context.Context) error {
	before, gaps := d.versions()
	began := d.now()
	services, instances, err := d.store.Load(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(instances, func(a, b *Instance) int { return strings.Compare(a.InstanceID, b.InstanceID) }) // so that each goes to an end
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readAt, d.closed = began, gaps
	d.forgetMissing(services, instances, before)
	for _, s := range services {
		d.putService(s)
	}
	for _, i := range instances {
		d.putInstance(i)
	}
	d.once.Do(func() { close(d.loaded) })
	return nil
}

// versions are those of what a directory knows.
type versions struct {
	services  map[uid.Service]int
	instances map[uid.Instance]int
}

// versions also returns how many gaps there have been.
func (d *Directory) versions() (v versions, gaps int) {
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

// forgetMissing takes out what was known before the load, has not changed since
// and is not there now.
func (d *Directory) forgetMissing(services []*Service, instances []*Instance, before versions) {
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

// Loaded is closed once the registry was loaded for the first time.
func (d *Directory) Loaded() <-chan struct{} { return d.loaded }

// Deliver takes in events of the log, in their order; a gap says that some may
// be missing before them. It is quick, as events carry all of their subjects.
func (d *Directory) Deliver(events []*event.Event, gap bool) {
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
		case event.ServiceRegistered, event.ServiceUpdated, event.ServiceDeregistered:
			s, err := serviceOf(e)
			d.take(e, s, nil, err)
		case event.InstanceRegistered, event.InstanceStatusChanged, event.InstanceDeregistered:
			i, err := instanceOf(e)
			d.take(e, nil, i, err)
		default: // not of the registry
		}
	}
}

func (d *Directory) take(e *event.Event, s *Service, i *Instance, err error) {
	switch {
	case err != nil:
		d.log.Error("an event of the registry cannot be read", "event", string(e.ID), "error", err)
	case s != nil:
		d.TakeService(s)
	case i != nil:
		d.TakeInstance(i)
	}
}

// Place returns a place in the log such that what the Directory says from now on
// holds all events up to there; nil while it may be missing some. Who reads it first and
// the registry then, and follows the log behind it, misses nothing.
func (d *Directory) Place() *event.Cursor {
	head := d.reader.Head() // first: it moves after the events were taken in
	d.mu.RLock()
	defer d.mu.RUnlock()
	if head == (event.Cursor{}) || d.closed != d.gaps {
		return nil
	}
	return &head
}

// TakeService takes in a service as it is after a change. What is older than
// what is known is ignored.
func (d *Directory) TakeService(s *Service) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.putService(s)
}

// TakeInstance is TakeService for an instance.
func (d *Directory) TakeInstance(i *Instance) {
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
			d.hide(s.Name)
		} else {
			d.services[s.ID] = &entry{service: s, instances: map[string]*Instance{}}
		}
		return
	case e == nil:
		e = &entry{instances: map[string]*Instance{}}
		d.services[s.ID] = e
	}
	e.service, e.set, e.kept = s, nil, nil
	if d.byName[s.Name] == nil {
		d.byName[s.Name] = e
		d.names = inserted(d.names, s.Name)
	}
}

// hide takes a deregistered service out of what can be found. Its entry stays:
// it tells old news from new.
func (d *Directory) hide(name string) {
	delete(d.byName, name)
	d.names = deleted(d.names, name)
}

func (d *Directory) removeService(e *entry) {
	d.hide(e.service.Name)
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
	e.put(i)
	d.instances[i.ID] = i
	if _, ok := d.leases[i.ID]; !ok {
		d.leases[i.ID] = Lease{ExpiresAt: i.UpdatedAt.Add(i.TTL), SeenAt: i.UpdatedAt}
	}
}

func (d *Directory) removeInstance(i *Instance) {
	d.remember(i.ID)
	delete(d.instances, i.ID)
	delete(d.leases, i.ID)
	if e := d.services[i.ServiceID]; e != nil && e.instances[i.InstanceID] != nil && e.instances[i.InstanceID].ID == i.ID {
		e.remove(i.InstanceID)
	}
}

// maxGone is how many removed instances are remembered at least, so that old
// news of them is known for what it is.
const maxGone = 50_000

func (d *Directory) remember(id uid.Instance) {
	if len(d.gone[0]) >= maxGone {
		d.gone[0], d.gone[1] = map[uid.Instance]struct{}{}, d.gone[0]
	}
	d.gone[0][id] = struct{}{}
}

func (d *Directory) wasRemoved(id uid.Instance) bool {
	_, young := d.gone[0][id]
	_, old := d.gone[1][id]
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
	return e.current(d.now())
}

// Health sums up the service, and says why it is degraded if it is.
func (d *Directory) Health(id uid.Service) (Health, *Degraded) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e := d.services[id]
	if e == nil {
		return Unhealthy, nil
	}
	lag := min(d.reader.Lag(), d.now().Sub(d.readAt)) // the log is first read after the load
	switch {
	case e.service.DoubtedSince != nil:
		return Impaired, &Degraded{MassFailure, *e.service.DoubtedSince, e.well}
	case lag > staleAfter:
		return Impaired, &Degraded{Stale, d.now().Add(-lag), e.well}
	case e.well > 0:
		return Healthy, nil
	default:
		return Unhealthy, nil
	}
}

// Lease returns what this node knows of an instance's lease: other nodes may
// have heard from it since.
func (d *Directory) Lease(id uid.Instance) Lease {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.leases[id]
}

// Renewed notes a renewal that came to this node.
func (d *Directory) Renewed(id uid.Instance, l Lease) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.instances[id]; known {
		d.leases[id] = l
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
