package registry

import (
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Set is a service with those of its instances that calls may go to, as a node
// knew them at one moment. It is immutable: who holds it may compare it with the
// next one by its address.
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
	// Release says that the call has ended, nobody knows how.
	Release()
	// Lost says that the call counts as over since nobody said in time how it ended.
	// That is a mild failure: callers that never say anything lose as many calls of
	// one instance as of any other.
	Lost()
}

// Chooser chooses instances; package balance implements it. It is safe for
// concurrent use.
type Chooser interface {
	// Choose chooses one of the set's instances; without any it is NO_INSTANCE.
	// The key says which calls belong together; only CONSISTENT_HASH heeds it.
	Choose(set *Set, strategy Strategy, key string) (Choice, error)
	// Inflight returns the calls under way that were chosen here; instances
	// without any are left out.
	Inflight() map[uid.Instance]int
	// SetRemoteInflight says which calls are under way that other nodes chose.
	SetRemoteInflight(calls map[uid.Instance]int)
}
