package store

import (
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/ent"
	entinstance "github.com/backplane-dev/backplane/ent/instance"
	entservice "github.com/backplane-dev/backplane/ent/service"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Registry implements registry.Store, registry.ReconcileStore and registry.PeerStore.
type Registry struct{ db *DB }

var (
	_ registry.Store          = Registry{}
	_ registry.ReconcileStore = Registry{}
	_ registry.PeerStore      = Registry{}
)

// Registry returns the store of services and instances.
func (db *DB) Registry() Registry { return Registry{db} }

// PutService implements registry.Store.
func (s Registry) PutService(ctx context.Context, cl claim.Claim, name string, fn func(*registry.Service) (*registry.Service, error)) (*registry.Service, error) {
	out, err := changeInTx(ctx, s.db, cl, s.service, func(t *tx) (*registry.Service, error) {
		row, err := t.ent.Service.Query().Where(equalsText(entservice.FieldName, name), t.forUpdate).Only(ctx)
		if err != nil && !ent.IsNotFound(err) {
			return nil, err
		}
		var before *registry.Service
		if row != nil {
			before = toService(row)
		}
		after, err := fn(before)
		if err != nil {
			return nil, err
		}
		return after, t.saveService(ctx, after, row == nil)
	})
	if err != nil {
		return nil, fmt.Errorf("put service: %w", err)
	}
	return out, nil
}

// ChangeService implements registry.Store.
func (s Registry) ChangeService(ctx context.Context, cl claim.Claim, id uid.Service, fn func(*registry.Service) error) (*registry.Service, error) {
	out, err := changeInTx(ctx, s.db, cl, s.service, func(t *tx) (*registry.Service, error) {
		row, err := t.ent.Service.Query().Where(entservice.ID(id), t.forUpdate).Only(ctx)
		if err != nil {
			return nil, orMissing(err, registry.ServiceNotFound().At("id"))
		}
		v := toService(row)
		if err := fn(v); err != nil {
			return nil, err
		}
		if err := t.saveService(ctx, v, false); err != nil || !v.Deregistered {
			return v, err
		}
		return v, t.removeInstances(ctx, id)
	})
	if err != nil {
		return nil, fmt.Errorf("change service %s: %w", id, err)
	}
	return out, nil
}

func (t *tx) removeInstances(ctx context.Context, id uid.Service) error {
	if _, err := t.exec(ctx, `DELETE FROM leases WHERE instance_id IN (SELECT id FROM instances WHERE service_id = ?)`, string(id)); err != nil {
		return err
	}
	_, err := t.exec(ctx, `DELETE FROM instances WHERE service_id = ?`, string(id))
	return err
}

// saveService stores the service if it recorded any event.
func (t *tx) saveService(ctx context.Context, v *registry.Service, isNew bool) error {
	events := v.TakeEvents()
	t.setResultObject(string(v.ID), v.Version)
	if len(events) == 0 {
		return nil
	}
	v.CreatedAt, v.UpdatedAt, v.DegradedSince = toMicros(v.CreatedAt), toMicros(v.UpdatedAt), toMicrosOrNil(v.DegradedSince)
	t.touchRow(registry.ServiceEntity.Name, string(v.ID), v.Version)
	t.recordEvents(events)
	if isNew {
		q := t.ent.Service.Create().SetID(v.ID).SetName(v.Name).SetCreatedAt(v.CreatedAt)
		setService(q.Mutation(), v)
		return q.Exec(ctx)
	}
	q := t.ent.Service.Update().Where(entservice.ID(v.ID))
	setService(q.Mutation(), v)
	return q.Exec(ctx)
}

func setService(m *ent.ServiceMutation, v *registry.Service) {
	m.SetDescription(v.Description)
	m.SetTags(orEmpty(v.Tags))
	m.SetMetadata(orNone(v.Metadata))
	m.SetStrategy(v.Strategy)
	m.SetTrusted(v.Trusted)
	m.SetPublic(v.Public)
	m.SetPaymentProvider(v.PaymentProvider)
	m.SetDeregistered(v.Deregistered)
	m.SetVersion(v.Version)
	m.SetUpdatedAt(v.UpdatedAt)
	if len(v.TrustedAddresses) == 0 {
		m.ClearTrustedAddresses()
	} else {
		m.SetTrustedAddresses(v.TrustedAddresses)
	}
	if v.HealthCheck == nil {
		m.ClearHealthCheck()
	} else {
		m.SetHealthCheck(v.HealthCheck)
	}
	if v.DegradedSince == nil {
		m.ClearDoubtedSince()
	} else {
		m.SetDoubtedSince(*v.DegradedSince)
	}
}

// PutInstance implements registry.Store. The service is locked against changes,
// but not against other instances.
func (s Registry) PutInstance(ctx context.Context, cl claim.Claim, service, instanceID string, fn func(*registry.Service, *registry.Instance) (*registry.Instance, error)) (*registry.Instance, error) {
	out, err := changeInTx(ctx, s.db, cl, s.instance, func(t *tx) (*registry.Instance, error) {
		parent, err := t.ent.Service.Query().Where(equalsText(entservice.FieldName, service), entservice.Deregistered(false), t.forShare).Only(ctx)
		if err != nil {
			return nil, orMissing(err, registry.ServiceNotFound().At("service"))
		}
		row, err := t.ent.Instance.Query().Where(entinstance.ServiceID(parent.ID), equalsText(entinstance.FieldInstanceID, instanceID), t.forUpdate).Only(ctx)
		if err != nil && !ent.IsNotFound(err) {
			return nil, err
		}
		var before *registry.Instance
		if row != nil {
			before = toInstance(row)
		}
		after, err := fn(toService(parent), before)
		if err != nil {
			return nil, err
		}
		return after, t.saveInstance(ctx, after, row == nil)
	})
	if err != nil {
		return nil, fmt.Errorf("put instance: %w", err)
	}
	return out, nil
}

func (t *tx) saveInstance(ctx context.Context, v *registry.Instance, isNew bool) error {
	events := v.TakeEvents()
	t.setResultObject(string(v.ID), v.Version)
	v.CreatedAt, v.UpdatedAt, v.StatusSince, v.LateSince = toMicros(v.CreatedAt), toMicros(v.UpdatedAt), toMicros(v.StatusSince), toMicrosOrNil(v.LateSince)
	if v.Alive {
		if err := t.resetLease(ctx, v); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		return nil
	}
	t.recordEvents(events)
	t.touched = append(t.touched, Touched{Entity: "instance", ID: string(v.ID), Version: v.Version, Deleted: v.Removed})
	switch {
	case v.Removed:
		if _, err := t.exec(ctx, `DELETE FROM leases WHERE instance_id = ?`, string(v.ID)); err != nil {
			return err
		}
		_, err := t.ent.Instance.Delete().Where(entinstance.ID(v.ID)).Exec(ctx)
		return err
	case isNew:
		q := t.ent.Instance.Create().SetID(v.ID).SetServiceID(v.ServiceID).SetInstanceID(v.InstanceID).SetCreatedAt(v.CreatedAt)
		setInstance(q.Mutation(), v)
		return q.Exec(ctx)
	}
	q := t.ent.Instance.Update().Where(entinstance.ID(v.ID))
	setInstance(q.Mutation(), v)
	return q.Exec(ctx)
}

func setInstance(m *ent.InstanceMutation, v *registry.Instance) {
	m.SetURL(v.URL)
	m.SetWeight(v.Weight)
	m.SetMetadata(orNone(v.Metadata))
	m.SetIncarnation(v.Incarnation)
	m.SetTTLMs(v.TTL.Milliseconds())
	m.SetStatus(v.Status)
	m.SetStatusReason(v.StatusReason)
	m.SetStatusSince(v.StatusSince)
	m.SetMode(v.Mode)
	m.SetModeReason(v.ModeReason)
	m.SetFailure(v.CheckFailure)
	m.SetVersion(v.Version)
	m.SetUpdatedAt(v.UpdatedAt)
	if v.LateSince == nil {
		m.ClearLateSince()
	} else {
		m.SetLateSince(*v.LateSince)
	}
}

// Load implements registry.Store.
func (s Registry) Load(ctx context.Context) ([]*registry.Service, []*registry.Instance, error) {
	services, err := s.db.client.Service.Query().Where(entservice.Deregistered(false)).All(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("load services: %w", s.db.translateError(ctx, err))
	}
	instances, err := s.db.client.Instance.Query().All(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("load instances: %w", s.db.translateError(ctx, err))
	}
	return mapSlice(services, toService), mapSlice(instances, toInstance), nil
}

// Find implements registry.Store.
func (s Registry) Find(ctx context.Context, service, instanceID string) (*registry.Service, *registry.Instance, error) {
	parent, err := s.db.client.Service.Query().Where(equalsText(entservice.FieldName, service), entservice.Deregistered(false)).Only(ctx)
	if ent.IsNotFound(err) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find service: %w", s.db.translateError(ctx, err))
	}
	row, err := s.db.client.Instance.Query().Where(entinstance.ServiceID(parent.ID), equalsText(entinstance.FieldInstanceID, instanceID)).Only(ctx)
	if ent.IsNotFound(err) {
		return toService(parent), nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find instance: %w", s.db.translateError(ctx, err))
	}
	return toService(parent), toInstance(row), nil
}

func (s Registry) service(ctx context.Context, id uid.Service) (*registry.Service, error) {
	row, err := s.db.client.Service.Get(ctx, id)
	if err != nil {
		return nil, s.db.translateError(ctx, orMissing(err, registry.ServiceNotFound()))
	}
	return toService(row), nil
}

// instance is the object of a replayed call; it may be gone.
func (s Registry) instance(ctx context.Context, id uid.Instance) (*registry.Instance, error) {
	row, err := s.db.client.Instance.Get(ctx, id)
	switch {
	case ent.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, s.db.translateError(ctx, err)
	}
	return toInstance(row), nil
}

func toService(r *ent.Service) *registry.Service {
	return &registry.Service{
		ID: r.ID, Name: r.Name, Description: r.Description, Tags: orEmpty(r.Tags), Metadata: orNone(r.Metadata), Strategy: r.Strategy,
		Trusted: r.Trusted, TrustedAddresses: r.TrustedAddresses, Public: r.Public, PaymentProvider: r.PaymentProvider,
		HealthCheck: r.HealthCheck, DegradedSince: toMicrosOrNil(r.DoubtedSince), Deregistered: r.Deregistered,
		Version: r.Version, CreatedAt: toMicros(r.CreatedAt), UpdatedAt: toMicros(r.UpdatedAt),
	}
}

func toInstance(r *ent.Instance) *registry.Instance {
	return &registry.Instance{
		ID: r.ID, ServiceID: r.ServiceID, InstanceID: r.InstanceID, URL: r.URL, Weight: r.Weight, Metadata: orNone(r.Metadata),
		Incarnation: r.Incarnation, TTL: time.Duration(r.TTLMs) * time.Millisecond,
		Status: r.Status, StatusReason: r.StatusReason, StatusSince: toMicros(r.StatusSince),
		Mode: r.Mode, ModeReason: r.ModeReason, LateSince: toMicrosOrNil(r.LateSince), CheckFailure: r.Failure,
		Version: r.Version, CreatedAt: toMicros(r.CreatedAt), UpdatedAt: toMicros(r.UpdatedAt),
	}
}

func orEmpty(s []string) []string { return append([]string{}, s...) }

func orNone(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
