package registry

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Store persists the registry. It is declared here, where it is used.
//
// Functions that are given may run again after a conflict, on fresh objects.
// What they change is committed with the events that they recorded, or nothing
// if they fail. The transaction of PutService, ChangeService and PutInstance makes the claim cl.
// For a duplicate call they return the object of the first, as it is now or nil if it is gone,
// and call no function.
type Store interface {
	// PutService locks the service of the name, which may be deregistered, or is
	// nil if there never was one, and stores what fn returns.
	PutService(ctx context.Context, cl claim.Claim, name string, fn func(*Service) (*Service, error)) (*Service, error)
	// ChangeService is PutService by id, for one that exists; else SERVICE_NOT_FOUND.
	// The instances of one that fn deregisters are removed.
	ChangeService(ctx context.Context, cl claim.Claim, id uid.Service, fn func(*Service) error) (*Service, error)
	// PutInstance locks the instance, which is nil if there is none, of a service
	// that stays as it is until the commit, and stores what fn returns: if it says
	// so, with a fresh lease, or not any more. A service that is absent or deregistered
	// is SERVICE_NOT_FOUND.
	PutInstance(ctx context.Context, cl claim.Claim, service, instanceID string, fn func(*Service, *Instance) (*Instance, error)) (*Instance, error)
	// Load returns everything that is not deregistered.
	Load(ctx context.Context) ([]*Service, []*Instance, error)
	// Find returns a service and its instance of the ids that owners use; nil for
	// what is absent.
	Find(ctx context.Context, service, instanceID string) (*Service, *Instance, error)
	// Leases returns the leases of the instances that exist.
	Leases(ctx context.Context, ids []uid.Instance) (map[uid.Instance]Lease, error)
	// Renew extends leases, all in one statement. Renewals of an earlier start of
	// an instance than the lease's, and of instances that are gone, change nothing.
	Renew(ctx context.Context, renewals []Renewal) error
}

// Renewal is a heartbeat of an instance, which extends its lease.
type Renewal struct {
	Instance    uid.Instance
	Incarnation int64
	TTL         time.Duration
	Inflight    int
	Age         time.Duration // since the node received it
}

// InstanceStart is one start of an instance.
type InstanceStart struct {
	Instance    uid.Instance
	Incarnation int64
}

// LeaseState is the state of an instance's lease by the database's clock.
type LeaseState struct {
	Overdue    bool // expired for longer than the grace
	Current    bool // not expired
	RemovalDue bool // the instance has been late for the longest permitted time
}

// ReconcileStore is the database of the Reconciler. Every method that writes checks in its own
// transaction that the lease, with its epoch as fencing token, is still held; else it is
// lease.ErrLost.
type ReconcileStore interface {
	// ExtendAllLeases has every lease end a whole time to live from now.
	ExtendAllLeases(ctx context.Context, t lease.Lease) error
	// DueServices returns services to evaluate, at most limit; if there are more, a random
	// choice. First come those with an instance whose lease is overdue by the grace and not yet
	// late, or late and renewed; then those with one that is late for more than removeAfter times
	// its time to live, and degraded ones.
	DueServices(ctx context.Context, grace time.Duration, removeAfter, limit int) ([]uid.Service, error)
	// EvaluateService locks the service, reads its instances, and stores what fn changes.
	EvaluateService(ctx context.Context, t lease.Lease, id uid.Service, grace time.Duration, removeAfter int,
		fn func(s *Service, all []*Instance, states map[uid.Instance]LeaseState) error) (*Service, []*Instance, error)
	// RecordChecks stores the last checks with the leases of the instances. Those of another start
	// than the lease's, and of instances that are gone, change nothing.
	RecordChecks(ctx context.Context, t lease.Lease, reports map[InstanceStart]CheckReport) error
}

// Outcome is how a call ended, as the caller reported it.
type Outcome struct {
	Pick string // id of the pick
	Node string // that picked
	OK   bool
	Took time.Duration
}

// PeerStore exchanges calls in flight and outcomes between nodes.
type PeerStore interface {
	// SyncPicks stores the node's calls in flight, which expire after ttl, and outcomes for
	// other nodes. It returns the calls in flight of all others, and removes and returns the
	// outcomes for this one.
	SyncPicks(ctx context.Context, node string, ttl time.Duration, calls map[uid.Instance]int, out []Outcome) (elsewhere map[uid.Instance]int, in []Outcome, err error)
}
