// Package claim declares what a write transaction claims, so that its effect happens once:
// a call under an idempotency key, or an event that a consumer handles.
//
// A claim is an argument: a mutation's resolver or a consumer makes it, the use case passes it
// to the one Store method that it is for, and every other transaction gets None. Package store
// inserts the claim's row first and commits it with the effect, so that a duplicate finds it.
package claim

import (
	"errors"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Claim is None, a Call or a Delivery. It is immutable and comparable.
type Claim interface{ sealed() }

// None claims nothing: each time the transaction runs, it takes effect.
const None none = 0

type none uint8

// Call is a mutation under an idempotency key. Two Calls with equal Caller, Key and Fingerprint
// are one call, made twice: the second one's transaction changes nothing, and its Store method
// returns the object of the first call, as it is now. IDEMPOTENCY_KEY_REUSED if only the
// fingerprints differ, IDEMPOTENCY_IN_FLIGHT if the first call does not end in time.
type Call struct {
	Caller      uid.User // the scope of Key
	Key         string   // chosen by the client, 1 to 200 printable ASCII characters
	Fingerprint [32]byte // HMAC of mutation name and coerced input
}

// Delivery is an event that a consumer handles under its lease. Its transaction returns
// ErrAlreadyHandled if the consumer has claimed the event before, and lease.ErrLost if the lease
// has another owner or epoch. Only package consumer and tests make Deliveries; no request can.
type Delivery struct {
	Lease    lease.Lease
	Event    uid.Event
	Position event.Position
}

// ErrAlreadyHandled means that the consumer's claim of the event exists: the effect of its
// transaction is committed.
var ErrAlreadyHandled = errors.New("the consumer has already handled this event")

func (none) sealed() {}

func (Call) sealed() {}

func (Delivery) sealed() {}
