package registry

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Limits of the registry as a whole, which every node holds in memory. They are
// counted by each node in its own directory, so concurrent calls at several nodes may
// exceed them by a few.
const (
	maxServices  = 10_000
	maxInstances = 200_000

	// maxServiceInstances bounds what the key of a service takes of maxInstances: a fifth, as it manages at most
	// 20 services.
	maxServiceInstances = 2000
)

// Registrar implements the calls on services and instances, with their permissions. Creating and
// managing a service needs ADMIN or an API key with the scope of the service.
// Any signed-in caller sees the name and health of a service; the rest is for
// SERVICE, STAFF, ADMIN and for callers that may manage it.
type Registrar struct {
	store     Store
	directory *Directory
	now       func() time.Time
	renewals  *renewals
}

// NewRegistrar returns a Registrar on the store that tells the time by now. It
// applies its changes to the directory at once.
func NewRegistrar(store Store, directory *Directory, now func() time.Time) *Registrar {
	return &Registrar{store, directory, now, newRenewals()}
}

// Register creates a service, brings a deregistered one back, or changes one
// that is there to what the input says.
func (r *Registrar) Register(ctx context.Context, cl claim.Claim, in ServiceInput) (*View, error) {
	caller, err := requireManager(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if n, _ := r.directory.Count(); n >= maxServices && r.directory.Service(in.Name) == nil {
		return nil, fault.New(fault.LimitReached, "There are %d services already.", maxServices)
	}
	if err := validateName(in.Name); err != nil {
		return nil, err
	}
	at, place := r.now(), r.directory.Cursor()
	s, err := r.store.PutService(ctx, cl, in.Name, func(s *Service) (*Service, error) {
		if s == nil {
			return NewService(in, at)
		}
		return s, s.Register(in, at)
	})
	return r.applyService(caller, s, place, err)
}

// Update changes a service. Only ADMIN, signed in, may say that it is trusted,
// public or a payment provider.
func (r *Registrar) Update(ctx context.Context, cl claim.Claim, id uid.Service, ifVersion *int, c ServiceChange) (*View, error) {
	allowed := func(caller *auth.Principal, s *Service) error {
		err := checkManager(caller, s.Name)
		switch {
		case err != nil || caller.IsUnscopedAdmin():
			return err
		case c.Trusted.Set:
			return fault.New(fault.Forbidden, "Only ADMIN, signed in with a password, may say which services are trusted.").At("trusted")
		case c.TrustedAddresses.Set:
			return fault.New(fault.Forbidden, "Only ADMIN, signed in with a password, may say where services are trusted.").At("trustedAddresses")
		case c.Public.Set:
			return fault.New(fault.Forbidden, "Only ADMIN, signed in with a password, may say which services are public.").At("public")
		case c.PaymentProvider.Set:
			return fault.New(fault.Forbidden, "Only ADMIN, signed in with a password, may say which services are payment providers.").At("paymentProvider")
		}
		return nil
	}
	return r.changeService(ctx, cl, id, ifVersion, allowed, func(s *Service, at time.Time) error { return s.Apply(c, at) })
}

// Deregister ends a service and removes its instances.
func (r *Registrar) Deregister(ctx context.Context, cl claim.Claim, id uid.Service, ifVersion *int) (*View, error) {
	allowed := func(caller *auth.Principal, s *Service) error { return checkManager(caller, s.Name) }
	return r.changeService(ctx, cl, id, ifVersion, allowed, func(s *Service, at time.Time) error {
		s.Deregister(at)
		return nil
	})
}

// changeService loads the service, checks that the caller may change it and that it has the
// expected version, and applies fn. For a duplicate call it checks the former of the service as
// it is now.
func (r *Registrar) changeService(ctx context.Context, cl claim.Claim, id uid.Service, ifVersion *int, allowed func(*auth.Principal, *Service) error, fn func(*Service, time.Time) error) (*View, error) {
	caller := auth.From(ctx)
	switch {
	case caller == nil:
		return nil, auth.NotSignedIn(ctx)
	case !id.Valid():
		return nil, ServiceNotFound().At("id")
	}
	at, place := r.now(), r.directory.Cursor()
	s, err := r.store.ChangeService(ctx, cl, id, func(s *Service) error {
		if err := allowed(caller, s); err != nil {
			return err
		}
		if s.Deregistered {
			return ServiceNotFound().At("id")
		}
		if err := validate.IfVersion(ctx, ifVersion, s.Version, r.view(caller, s, place)); err != nil {
			return err
		}
		return fn(s, at)
	})
	if err == nil {
		err = allowed(caller, s)
	}
	return r.applyService(caller, s, place, err)
}

func (r *Registrar) applyService(caller *auth.Principal, s *Service, place *event.Cursor, err error) (*View, error) {
	if err != nil {
		return nil, err
	}
	r.directory.ApplyService(s)
	return r.view(caller, s, place), nil
}

// RegisterInstance registers a running copy of a service, or another start of
// one. It is an upsert by service and instance id.
func (r *Registrar) RegisterInstance(ctx context.Context, cl claim.Claim, service string, in InstanceInput) (*Instance, error) {
	if r.directory.Instance(service, in.InstanceID) == nil {
		if _, n := r.directory.Count(); n >= maxInstances {
			return nil, fault.New(fault.LimitReached, "There are %d instances already.", maxInstances)
		}
		if r.directory.CountInstances(service) >= maxServiceInstances {
			return nil, fault.New(fault.LimitReached, "The service has %d instances already.", maxServiceInstances)
		}
	}
	return r.putInstance(ctx, cl, service, in.InstanceID, func(s *Service, i *Instance, at time.Time) (*Instance, error) {
		if i == nil {
			return NewInstance(s.ID, in, at)
		}
		return i, i.Register(in, at)
	})
}

// DeregisterInstance removes an instance.
func (r *Registrar) DeregisterInstance(ctx context.Context, cl claim.Claim, service, instanceID string, incarnation int64) (*Instance, error) {
	return r.changeInstance(ctx, cl, service, instanceID, incarnation, func(i *Instance, at time.Time) error {
		i.Remove(at)
		return nil
	})
}

// UpdateInstance changes the weight or the metadata of an instance.
func (r *Registrar) UpdateInstance(ctx context.Context, cl claim.Claim, service, instanceID string, incarnation int64, c InstanceChange) (*Instance, error) {
	return r.changeInstance(ctx, cl, service, instanceID, incarnation, func(i *Instance, at time.Time) error { return i.Apply(c, at) })
}

// Drain takes an instance out of use until its next start.
func (r *Registrar) Drain(ctx context.Context, cl claim.Claim, service, instanceID string, incarnation int64, reason string) (*Instance, error) {
	return r.changeInstance(ctx, cl, service, instanceID, incarnation, func(i *Instance, at time.Time) error { return i.Drain(reason, at) })
}

// SetMaintenance takes an instance out of use, or with on false back into it.
func (r *Registrar) SetMaintenance(ctx context.Context, cl claim.Claim, service, instanceID string, on bool, reason string) (*Instance, error) {
	return r.changeInstance(ctx, cl, service, instanceID, 0, func(i *Instance, at time.Time) error { return i.SetMaintenance(on, reason, at) })
}

func (r *Registrar) changeInstance(ctx context.Context, cl claim.Claim, service, instanceID string, incarnation int64, fn func(*Instance, time.Time) error) (*Instance, error) {
	return r.putInstance(ctx, cl, service, instanceID, func(_ *Service, i *Instance, at time.Time) (*Instance, error) {
		if i == nil {
			return nil, InstanceNotFound().At("instanceId")
		}
		if err := i.CheckIncarnation(incarnation); err != nil {
			return nil, err
		}
		return i, fn(i, at)
	})
}

func (r *Registrar) putInstance(ctx context.Context, cl claim.Claim, service, instanceID string, fn func(*Service, *Instance, time.Time) (*Instance, error)) (*Instance, error) {
	if _, err := requireManager(ctx, service); err != nil {
		return nil, err
	}
	at := r.now()
	var parent *Service
	i, err := r.store.PutInstance(ctx, cl, service, instanceID, func(s *Service, i *Instance) (*Instance, error) {
		parent = s
		return fn(s, i, at)
	})
	if err != nil || i == nil {
		return nil, err
	}
	if parent != nil {
		r.directory.ApplyService(parent) // another node may have just created it
	}
	r.directory.ApplyInstance(i)
	if i.Alive {
		r.directory.RecordRenewal(i.ID, Lease{ExpiresAt: at.Add(i.TTL), SeenAt: at})
	}
	return i, nil
}

// Renew is the heartbeat of an instance: cheap, as renewals are written later, in batches. It
// answers at once whether the caller's incarnation is the current one; with the incarnation zero
// it renews the current one.
func (r *Registrar) Renew(ctx context.Context, service, instanceID string, incarnation int64, inflight int) (*Instance, error) {
	if _, err := requireManager(ctx, service); err != nil {
		return nil, err
	}
	if incarnation < 0 || incarnation > MaxIncarnation {
		return nil, errInstance("incarnation", "An incarnation is a whole number from 1 to 2^53-1.")
	}
	if inflight < 0 {
		return nil, fault.New(fault.BadInput, "inflight must not be negative.").At("inflight")
	}
	i := r.directory.Instance(service, instanceID)
	if i == nil || incarnation > i.Incarnation {
		var err error
		if i, err = r.findInstance(ctx, service, instanceID); err != nil {
			return nil, err
		}
	}
	if err := i.CheckIncarnation(incarnation); err != nil {
		return nil, err
	}
	if incarnation > i.Incarnation {
		return nil, InstanceNotFound().At("incarnation")
	}
	at := r.now()
	r.renewals.add(Renewal{Instance: i.ID, Incarnation: i.Incarnation, TTL: i.TTL, Inflight: inflight}, at)
	r.directory.RecordRenewal(i.ID, Lease{ExpiresAt: at.Add(i.TTL), SeenAt: at, Inflight: inflight})
	return i, nil
}

// findInstance reads an instance from the database that the directory does not have yet.
func (r *Registrar) findInstance(ctx context.Context, service, instanceID string) (*Instance, error) {
	s, i, err := r.store.Find(ctx, service, instanceID)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, ServiceNotFound().At("service")
	case i == nil:
		return nil, InstanceNotFound().At("instanceId")
	}
	r.directory.ApplyService(s)
	r.directory.ApplyInstance(i)
	return i, nil
}

// requireManager returns the caller if it may manage the service of the name.
func requireManager(ctx context.Context, name string) (*auth.Principal, error) {
	caller := auth.From(ctx)
	if caller == nil {
		return nil, auth.NotSignedIn(ctx)
	}
	return caller, checkManager(caller, name)
}

// checkManager returns FORBIDDEN for a caller that may not manage the service of the name.
func checkManager(caller *auth.Principal, name string) error {
	if caller.MayManageService(name) {
		return nil
	}
	return fault.New(fault.Forbidden, "This needs ADMIN or an API key with the scope %.80s.", auth.ServiceScope(name))
}

// ServiceFilter says which services a list shows. Nil fields filter nothing.
type ServiceFilter struct {
	Tag    *string
	Health *Health
}

// OrderBy says how a list of services is sorted.
type OrderBy string

// The orders of a list of services.
const (
	ByNameAsc  OrderBy = "NAME_ASC"
	ByNameDesc OrderBy = "NAME_DESC"
)

// Service returns the service of the name as the caller may see it; nil if there
// is none, or the caller is anonymous.
func (r *Registrar) Service(ctx context.Context, name string) *View {
	place := r.directory.Cursor()
	return r.viewOf(ctx, r.directory.Service(name), place)
}

// ServicesByIDs returns those of the services that exist, as the caller may see
// them.
func (r *Registrar) ServicesByIDs(ctx context.Context, ids []uid.Service) (map[uid.Service]*View, error) {
	found := make(map[uid.Service]*View, len(ids))
	place := r.directory.Cursor()
	for _, id := range ids {
		if v := r.viewOf(ctx, r.directory.ServiceByID(id), place); v != nil {
			found[id] = v
		}
	}
	return found, nil
}

func (r *Registrar) viewOf(ctx context.Context, s *Service, place *event.Cursor) *View {
	caller := auth.LastKnown(ctx)
	if s == nil || caller == nil {
		return nil
	}
	return r.view(caller, s, place)
}

// List returns a page of the services.
func (r *Registrar) List(ctx context.Context, f ServiceFilter, by OrderBy, args page.Args) (page.Page[*View], error) {
	return pageOf(r.matchingServices(ctx, f), by == ByNameDesc, string(by), args, func(v *View) string { return v.Name })
}

// Count returns how many services List would show on all its pages.
func (r *Registrar) Count(ctx context.Context, f ServiceFilter) (int, error) {
	return len(r.matchingServices(ctx, f)), nil
}

func (r *Registrar) matchingServices(ctx context.Context, f ServiceFilter) []*View {
	caller := auth.LastKnown(ctx)
	if caller == nil {
		return nil
	}
	var all []*View
	place := r.directory.Cursor()
	for _, s := range r.directory.Services() {
		if v := r.view(caller, s, place); v.matches(f) {
			all = append(all, v)
		}
	}
	return all
}

// InstancesByIDs returns those of the instances that exist and that the caller
// may see.
func (r *Registrar) InstancesByIDs(ctx context.Context, ids []uid.Instance) (map[uid.Instance]*Instance, error) {
	found := make(map[uid.Instance]*Instance, len(ids))
	caller := auth.LastKnown(ctx)
	for _, id := range ids {
		i := r.directory.InstanceByID(id)
		if i == nil {
			continue
		}
		if s := r.directory.ServiceByID(i.ServiceID); s != nil && maySeeAll(caller, s) {
			found[id] = i
		}
	}
	return found, nil
}

// PeekService is ServicesByIDs for one service, at once; ok is false if it is not there.
func (r *Registrar) PeekService(ctx context.Context, id uid.Service) (v *View, ok bool) {
	place := r.directory.Cursor()
	v = r.viewOf(ctx, r.directory.ServiceByID(id), place)
	return v, v != nil
}

// PeekInstance is InstancesByIDs for one instance, at once; ok is false if it is not there.
func (r *Registrar) PeekInstance(ctx context.Context, id uid.Instance) (i *Instance, ok bool) {
	found, _ := r.InstancesByIDs(ctx, []uid.Instance{id}) // it has no error
	return found[id], found[id] != nil
}

// InstanceByName returns the instance of the service with the id that its owner gave it; nil if there is none
// that the caller may see.
func (r *Registrar) InstanceByName(ctx context.Context, id uid.Service, instanceID string) *Instance {
	s := r.directory.ServiceByID(id)
	if s == nil || !maySeeAll(auth.LastKnown(ctx), s) {
		return nil
	}
	return r.directory.Instance(s.Name, instanceID)
}

// InstancesByServices returns for each of the services a page of its instances,
// by the ids that their owners gave them, with the status if one is given.
// Services whose instances the caller may not see have none.
func (r *Registrar) InstancesByServices(ctx context.Context, ids []uid.Service, status *Status, args page.Args) (map[uid.Service]page.Page[*Instance], error) {
	pages := make(map[uid.Service]page.Page[*Instance], len(ids))
	for _, id := range ids {
		p, err := pageOf(r.instancesOf(ctx, id, status), false, "INSTANCE_ID_ASC", args, func(i *Instance) string { return i.InstanceID })
		if err != nil {
			return nil, err
		}
		pages[id] = p
	}
	return pages, nil
}

// CountByServices returns how many instances InstancesByServices would show on
// all pages of each.
func (r *Registrar) CountByServices(ctx context.Context, ids []uid.Service, status *Status) (map[uid.Service]int, error) {
	counts := make(map[uid.Service]int, len(ids))
	for _, id := range ids {
		counts[id] = len(r.instancesOf(ctx, id, status))
	}
	return counts, nil
}

func (r *Registrar) instancesOf(ctx context.Context, id uid.Service, status *Status) []*Instance {
	s := r.directory.ServiceByID(id)
	if s == nil || !maySeeAll(auth.LastKnown(ctx), s) {
		return nil
	}
	all := r.directory.Instances(id)
	if status == nil {
		return all
	}
	var some []*Instance
	for _, i := range all {
		if i.Status == *status {
			some = append(some, i)
		}
	}
	return some
}

// Leases returns the leases of instances that the caller has been shown. Without
// the database they are those that this node received itself.
func (r *Registrar) Leases(ctx context.Context, ids []uid.Instance) (map[uid.Instance]Lease, error) {
	found, err := r.store.Leases(ctx, ids)
	if err != nil && fault.From(err).Kind() != fault.KindUnavailable {
		return nil, err
	}
	leases := make(map[uid.Instance]Lease, len(ids))
	for _, id := range ids {
		l := r.directory.Lease(id)
		if stored, ok := found[id]; ok && stored.SeenAt.After(l.SeenAt) {
			l = stored
		}
		leases[id] = l
	}
	return leases, nil
}
