package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/secrets"
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

// newSigningKey returns a random key, sealed.
func newSigningKey(sealer *secrets.Sealer, at, signsAt time.Time) *SigningKey {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // documented never to fail
	id := strings.ToLower(rand.Text())
	return &SigningKey{ID: id, Sealed: sealer.Seal(purposeOf(id), seed), CreatedAt: at, SignsAt: signsAt}
}

// private unseals the private key.
func (k *SigningKey) private(sealer *secrets.Sealer) (ed25519.PrivateKey, error) {
	seed, err := sealer.Unseal(purposeOf(k.ID), k.Sealed)
	if err != nil {
		return nil, err
	}
	if len(seed) != ed25519.SeedSize {
		return nil, secrets.ErrSealed
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// purposeOf binds a sealed key to its id, so that rows cannot be swapped.
func purposeOf(id string) string { return "signing-key:" + id }

// recordRotation records that the key takes over from another.
func (k *SigningKey) recordRotation(at time.Time) {
	k.events.Record(EventSigningKeyRotated, k.ID, 1, rotationData{k.SignsAt}, at)
}

// rotationData and revocationData are what the events show.
type rotationData struct {
	SignsAt time.Time `doc:"from when on the key signs" json:"signsAt"`
}

type revocationData struct {
	ReplacedBy string `doc:"the id of the key that signs instead" json:"replacedBy"`
}

// recordRevocation records that the key replaces one that was revoked.
func (k *SigningKey) recordRevocation(revoked string, at time.Time) {
	k.events.Record(EventSigningKeyRevoked, revoked, 1, revocationData{k.ID}, at)
}
