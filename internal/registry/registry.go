// Package registry owns services and their instances: who they are, whether
// they live, and which of them may be called.
//
// A Service is a name with what its callers share; an Instance is one running
// copy of it, at a URL. The rules are methods of both and need neither a clock
// nor a database. Use cases and permissions are the Registrar's. Each node knows
// all of the registry by its Directory, which follows the event log, and goes on
// from the last known state when the database is gone. One node at a time, the
// Keeper, judges who is late with its renewals or fails its checks.
//
// What callers are promised: of a service and an instance id there is one
// instance at most; calls of an earlier start of it are refused; and when most of
// a service vanishes at once it is the news that is doubted first, see Degraded.
//
// Which instance a caller gets is the business of package balance.
package registry

import (
	"slices"
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

// Status says whether an instance may be called.
type Status string

// The statuses.
const (
	Passing     Status = "PASSING"
	Critical    Status = "CRITICAL"    // late with its renewal, or failing its checks
	Draining    Status = "DRAINING"    // gets no new calls; ends with its next start
	Maintenance Status = "MAINTENANCE" // gets no calls until somebody says otherwise
)

// Statuses returns every status.
func Statuses() []Status { return []Status{Passing, Critical, Draining, Maintenance} }

// Health sums up a service.
type Health string

// The healths.
const (
	HealthHealthy  Health = "HEALTHY"  // there are instances that pass
	HealthDegraded Health = "DEGRADED" // what is known may not be true, see Degraded
	HealthDown     Health = "DOWN"     // no instance can be called
)

// Reason says why a service is degraded.
type Reason string

// The reasons.
const (
	MassFailure Reason = "MASS_FAILURE" // most instances vanished at once; the last good ones stay in use
	Stale       Reason = "STALE"        // this node has not heard from the database for a while
)

// Degraded says that more instances are in use than are known to be well.
type Degraded struct {
	Reason      Reason
	Since       time.Time
	RealHealthy int // instances that are known to be well
}

// ServiceNotFound is the error for a service that is absent.
func ServiceNotFound() *fault.Error {
	return fault.New(fault.ServiceNotFound, "There is no such service.")
}

// InstanceNotFound is the error for an instance that is absent or hidden.
func InstanceNotFound() *fault.Error {
	return fault.New(fault.InstanceNotFound, "There is no such instance; register it.")
}
