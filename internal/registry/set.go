package registry

import (
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Set is a service with those of its instances that calls may go to, as a node
// knew them at one moment. It is immutable: callers may compare two by their addresses.
type Set struct {
	Service   *Service
	Instances []*Instance // in the order of their ids
}

// Choice is an instance that was chosen for one call. Exactly one of Done,
// Release and Lost must be called, once, when the call has ended.
type Choice interface {
	Instance() *Instance
	// Done says how the call ended and how long it took.
	Done(ok bool, took time.Duration)
	// Release says that the call has ended, with an unknown outcome.
	Release()
	// Lost says that no outcome was reported in time, so the call counts as ended.
	// That is a mild failure: callers that never report lose as many calls of one instance
	// as of any other.
	Lost()
}

// Chooser chooses instances; package balance implements it. It is safe for
// concurrent use.
type Chooser interface {
	// Choose chooses one of the set's instances; without any it is NO_INSTANCE.
	// The key says which calls belong together; only CONSISTENT_HASH uses it.
	Choose(set *Set, strategy Strategy, key string) (Choice, error)
	// Inflight returns the calls in flight that were chosen here; instances
	// without any are left out.
	Inflight() map[uid.Instance]int
	// SetRemoteInflight sets the calls in flight that other nodes chose.
	SetRemoteInflight(calls map[uid.Instance]int)
}
