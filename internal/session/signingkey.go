package session

import (
	"time"

	"backplane/internal/event"
)

// SigningKey is an Ed25519 key that signs access tokens from SignsAt on, until
// a younger key does. It is never changed.
type SigningKey struct {
	ID        string // the kid of its tokens, at most 32 characters
	Sealed    []byte // its seed, sealed
	CreatedAt time.Time
	SignsAt   time.Time
	events    event.Recorder
}

// TakeEvents returns the events recorded since the last call.
func (k *SigningKey) TakeEvents() []event.Event { return k.events.Take() }
