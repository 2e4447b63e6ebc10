// Package registry does service discovery: it owns services and their instances, their leases,
// their health, and the set of instances that may be called.
//
// A Service is a name with what its callers share; an Instance is one running copy of it, at a
// URL. The rules are methods of both and need neither a clock nor a database. The Registrar has
// the use cases and checks permissions. An instance renews its lease by heartbeats. The
// Directory of a node holds the whole registry in memory, follows the event log, and serves the
// last known state when the database is down. The Reconciler runs the reconcile loop on the one
// node that holds its lease: it expires leases and applies the results of health checks. The
// PickTracker hands out pick tokens and counts calls in flight.
//
// Invariants: at most one instance has a service and an instance id; its incarnation is a fencing
// token, so calls of an earlier start are refused; and when most of a service fails at once, the
// last healthy instances stay in use (mass-failure guard, a panic threshold), see Degraded.
//
// Package balance chooses the instance of a call. The package exports more names than most:
// services and instances share leases, health and rules, each use case has its input, and there
// are types of events and codes of errors.
package registry

import (
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Strategy says how callers are spread over the instances of a service. Weights
// count in all of them.
type Strategy string

// The strategies.
const (
	RoundRobin       Strategy = "ROUND_ROBIN"
	Random           Strategy = "RANDOM"
	LeastConnections Strategy = "LEAST_CONNECTIONS"
	PowerOfTwo       Strategy = "POWER_OF_TWO"
	ConsistentHash   Strategy = "CONSISTENT_HASH"
)

// Strategies returns every strategy.
func Strategies() []Strategy {
	return []Strategy{RoundRobin, Random, LeastConnections, PowerOfTwo, ConsistentHash}
}

// Known reports whether there is such a strategy.
func (s Strategy) Known() bool { return slices.Contains(Strategies(), s) }

// Check returns an error that lists the strategies if there is no such one.
func (s Strategy) Check() error {
	if s.Known() {
		return nil
	}
	names := make([]string, 0, len(Strategies()))
	for _, known := range Strategies() {
		names = append(names, string(known))
	}
	return fault.New(CodeServiceInvalid, "There is no strategy %.40q; there are %s.", s, strings.Join(names, ", ")).At("strategy")
}

// Status says whether an instance may be called.
type Status string

// The statuses.
const (
	Passing     Status = "PASSING"
	Critical    Status = "CRITICAL"    // late with its renewal, or failing its checks
	Draining    Status = "DRAINING"    // gets no new calls; ends with its next start
	Maintenance Status = "MAINTENANCE" // gets no calls until an operator ends it
)

// Statuses returns every status.
func Statuses() []Status { return []Status{Passing, Critical, Draining, Maintenance} }

// Health sums up a service.
type Health string

// The healths.
const (
	HealthHealthy  Health = "HEALTHY"  // there are instances that pass
	HealthDegraded Health = "DEGRADED" // unhealthy instances may be in use, see Degraded
	HealthDown     Health = "DOWN"     // no instance can be called
)

// Reason says why a service is degraded.
type Reason string

// The reasons.
const (
	MassFailure Reason = "MASS_FAILURE" // most instances failed at once; the last healthy ones stay in use
	Stale       Reason = "STALE"        // this node has not read the event log for a while
)

// Degraded says that more instances are in use than are known to be healthy.
type Degraded struct {
	Reason      Reason
	Since       time.Time
	RealHealthy int // instances that are known to be healthy
}

// ServiceNotFound is the error for a service that is absent.
func ServiceNotFound() *fault.Error {
	return fault.New(CodeServiceNotFound, "There is no such service.")
}

// InstanceNotFound is the error for an instance that is absent or hidden.
func InstanceNotFound() *fault.Error {
	return fault.New(CodeInstanceNotFound, "There is no such instance; register it.")
}
