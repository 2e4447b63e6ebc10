package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// UseInterval is the least time between two changes of LastUsedAt of one key.
const UseInterval = time.Minute

// APIKey lets a program act as a user, within scopes and until a date.
type APIKey struct {
	ID         uid.APIKey
	UserID     uid.User // the user it acts as
	Name       string
	Scopes     []auth.Scope // in the order of auth.Scopes
	Hash       []byte       // SHA-256 of the secret, which is random enough for a plain hash
	Version    int          // raised by each change but use
	CreatedAt  time.Time
	UpdatedAt  time.Time
	ExpiresAt  time.Time
	LastUsedAt *time.Time // to the minute
	RevokedAt  *time.Time

	ExpiryAnnouncedAt *time.Time // when api_key.expiring was recorded, nil before
	events            event.Recorder
}

// Live reports whether the key is neither revoked nor expired at the time.
func (k *APIKey) Live(at time.Time) bool { return k.RevokedAt == nil && at.Before(k.ExpiresAt) }

// Revoke ends the key and records api_key.revoked; on a revoked key it does
// nothing.
func (k *APIKey) Revoke(at time.Time) {
	if k.RevokedAt != nil {
		return
	}
	k.RevokedAt = &at
	k.recordChange(EventAPIKeyRevoked, at)
}

// ExpiryNotice is how long before its end a key is announced to end.
const ExpiryNotice = 14 * 24 * time.Hour

// AnnounceExpiry records api_key.expiring, once for each key.
func (k *APIKey) AnnounceExpiry(at time.Time) {
	if k.ExpiryAnnouncedAt != nil {
		return
	}
	k.ExpiryAnnouncedAt = &at
	k.recordChange(EventAPIKeyExpiring, at)
}

// The text of an API key: the prefix, by which secret scanners find it, the
// unique part of its id, and 256 random bits in base64url.
const (
	keyPrefix    = "bpk_"
	keyIDLen     = 26
	keySecretLen = 43
)

// generateKey returns the text of a key with a random secret, and the secret's hash.
func generateKey(id uid.APIKey) (text string, hash []byte) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // documented never to fail
	secret := base64.RawURLEncoding.EncodeToString(raw)
	sum := sha256.Sum256([]byte(secret))
	return keyText(id, secret), sum[:]
}

func keyText(id uid.APIKey, secret string) string {
	return keyPrefix + strings.TrimPrefix(string(id), string(uid.KindAPIKey)+"_") + "_" + secret
}

// parseKey reads the text of a key; ok is false for anything else.
func parseKey(s string) (id uid.APIKey, secret string, ok bool) {
	const secretAt = len(keyPrefix) + keyIDLen + 1
	if len(s) != secretAt+keySecretLen {
		return "", "", false
	}
	id = uid.APIKey(string(uid.KindAPIKey) + "_" + s[len(keyPrefix):secretAt-1])
	secret = s[secretAt:]
	if !id.Valid() || keyText(id, secret) != s {
		return "", "", false
	}
	return id, secret, true
}

// TakeEvents returns the events recorded since the last call.
func (k *APIKey) TakeEvents() []event.Event { return k.events.Take() }

// KeyNotFound is the error for an API key that is absent or hidden: one error,
// so that ids cannot be probed.
func KeyNotFound() *fault.Error {
	return fault.New(CodeAPIKeyNotFound, "There is no such API key.").At("id")
}

// keySnapshot is the key as its events show it.
type keySnapshot struct {
	UserID    uid.User     `json:"userId"`
	Name      string       `json:"name"`
	Scopes    []auth.Scope `json:"scopes"`
	ExpiresAt time.Time    `json:"expiresAt"`
	RevokedAt *time.Time   `json:"revokedAt"`
}

// recordChange records a change of the key, which raises its version.
func (k *APIKey) recordChange(t event.Type, at time.Time) {
	k.Version, k.UpdatedAt = k.Version+1, at
	k.recordEvent(t, at)
}

func (k *APIKey) recordEvent(t event.Type, at time.Time) {
	k.events.Record(t, string(k.ID), k.Version, keySnapshot{k.UserID, k.Name, k.Scopes, k.ExpiresAt, k.RevokedAt}, at, string(k.UserID))
}
