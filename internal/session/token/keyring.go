package token

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/secrets"
)

// KeyStore reads and changes the keys that sign tokens.
type KeyStore interface {
	// SigningKeys returns every key, by SignsAt, then by ID.
	SigningKeys(ctx context.Context) ([]*SigningKey, error)
	// UpdateSigningKeys takes the one lock of all signing keys (against inserts
	// too: on an empty table ten nodes must not make ten keys), reads every key by
	// SignsAt, then ID, and calls fn. It inserts the key that fn returns, if any,
	// with its events, and removes the keys named by drop. It returns the keys as
	// they are after the commit, in the same order. It is one transaction; fn may
	// run again after a conflict, on fresh rows.
	UpdateSigningKeys(ctx context.Context, fn func(keys []*SigningKey) (add *SigningKey, drop []string, err error)) ([]*SigningKey, error)
}

// KeyRing is what a node has read of the signing keys. Every node reads them again
// once an interval, and a verifier may cache the key set of a node for an interval
// (max-age). A new key signs two intervals after it was stored: by then every node
// publishes it, and every verifier that obeys max-age knows it. It is safe for
// concurrent use.
type KeyRing struct {
	store    KeyStore
	sealer   *secrets.Sealer
	now      func() time.Time
	interval time.Duration
	tokenTTL time.Duration // of the tokens that the keys sign

	mu       sync.Mutex // held while reading the keys
	rereadAt time.Time  // when a token of an unknown key last had them read
	keys     atomic.Pointer[keySet]
}

// NewKeyRing returns a KeyRing that has read no keys yet.
func NewKeyRing(store KeyStore, sealer *secrets.Sealer, cfg Config, now func() time.Time) *KeyRing {
	return &KeyRing{store: store, sealer: sealer, now: now, interval: cfg.KeyInterval, tokenTTL: cfg.AccessTTL}
}

// Load reads the keys again, and makes the first if there is none.
func (r *KeyRing) Load(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.read(ctx)
	return err
}

// JWKS returns the JSON Web Key Set (RFC 7517) by which others verify our tokens,
// an empty one before the keys were read. Callers must not change it.
func (r *KeyRing) JWKS() []byte {
	if set := r.keys.Load(); set != nil {
		return set.published
	}
	return []byte(`{"keys":[]}`)
}

// keySet is the keys as they were read. It is immutable.
type keySet struct {
	keys      []loadedKey // by when they sign
	published []byte      // the JSON Web Key Set
}

type loadedKey struct {
	id      string
	private ed25519.PrivateKey
	signsAt time.Time
	until   time.Time // when its last token has expired; zero if none took over
}

// minReread keeps tokens of unknown keys from making us read the keys over and
// over. A token of a key that replaces a revoked one may be refused for as long,
// while tokens of keys that never were ones arrive.
const minReread = 100 * time.Millisecond

// current returns the keys this node knows, and reads them first if it knows
// none yet.
func (r *KeyRing) current(ctx context.Context) (*keySet, error) {
	if set := r.keys.Load(); set != nil {
		return set, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if set := r.keys.Load(); set != nil {
		return set, nil // another caller has read them meanwhile
	}
	return r.read(ctx)
}

// reread returns keys that are younger than the set, which lacks the key of a token. It reads them, unless
// another such token had them read less than minReread ago. When they were read for any other reason does not
// matter: a key that replaces a revoked one signs from the moment of its commit.
func (r *KeyRing) reread(ctx context.Context, set *keySet) (*keySet, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.keys.Load(); now != nil && now != set {
		return now, nil
	}
	at := r.now()
	if at.Sub(r.rereadAt).Abs() < minReread {
		return set, nil
	}
	r.rereadAt = at
	return r.read(ctx)
}

// read reads the keys. Where there are none it makes the first, which signs at once: no token needs another.
// The caller holds the lock.
func (r *KeyRing) read(ctx context.Context) (*keySet, error) {
	at := r.now()
	stored, err := r.store.SigningKeys(ctx)
	if err == nil && len(stored) == 0 {
		stored, err = r.store.UpdateSigningKeys(ctx, func(keys []*SigningKey) (*SigningKey, []string, error) {
			if len(keys) > 0 {
				return nil, nil, nil // another node was first
			}
			return newSigningKey(r.sealer, at, at), nil, nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return r.activate(stored, at)
}

// activate makes the stored keys the ones that this node uses.
func (r *KeyRing) activate(stored []*SigningKey, at time.Time) (*keySet, error) {
	set := &keySet{}
	for i, k := range stored {
		until := r.retiresAt(stored, i)
		if !until.IsZero() && !at.Before(until) {
			continue
		}
		private, err := k.private(r.sealer)
		if err != nil {
			return nil, fmt.Errorf("open signing key %s: %w", k.ID, err)
		}
		set.keys = append(set.keys, loadedKey{k.ID, private, k.SignsAt, until})
	}
	set.published = encodeJWKS(set.keys)
	r.keys.Store(set)
	return set, nil
}

// retiresAt returns when the last token of a key has expired, zero if no younger
// key takes over. A node may learn an interval late that one did.
func (r *KeyRing) retiresAt(keys []*SigningKey, i int) time.Time {
	if i+1 == len(keys) {
		return time.Time{}
	}
	return keys[i+1].SignsAt.Add(r.interval + r.tokenTTL)
}

// signingKeyAt returns the key that signs at the time: the youngest whose SignsAt
// has come, or the oldest if none has come, as may be when clocks differ.
func (r *KeyRing) signingKeyAt(ctx context.Context, at time.Time) (loadedKey, error) {
	set, err := r.current(ctx)
	if err != nil {
		return loadedKey{}, err
	}
	for i := len(set.keys) - 1; i > 0; i-- {
		if !at.Before(set.keys[i].signsAt) {
			return set.keys[i], nil
		}
	}
	return set.keys[0], nil // there is always one, see reload
}

// sign signs the claims by the key that signs at the time, and names it as kid.
func (r *KeyRing) sign(ctx context.Context, at time.Time, c jwt.Claims) (string, error) {
	key, err := r.signingKeyAt(ctx, at)
	if err != nil {
		return "", err
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	tok.Header["kid"] = key.id
	return tok.SignedString(key.private)
}

// publicKey returns the public key of that id, or ErrInvalid.
func (r *KeyRing) publicKey(ctx context.Context, id string) (ed25519.PublicKey, error) {
	set, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	if k, ok := set.find(id, r.now()); ok {
		return k, nil
	}
	set, err = r.reread(ctx, set)
	if err != nil {
		return nil, err
	}
	if k, ok := set.find(id, r.now()); ok {
		return k, nil
	}
	return nil, ErrInvalid
}

func (s *keySet) find(id string, at time.Time) (ed25519.PublicKey, bool) {
	for _, k := range s.keys {
		if k.id == id && (k.until.IsZero() || at.Before(k.until)) {
			return publicKeyOf(k.private), true
		}
	}
	return nil, false
}

// Rotate makes a new key, which signs two intervals from now, records
// signing_key.rotated, and removes the keys that no token needs any more. While a
// key does not sign yet it makes none and returns that one.
func (r *KeyRing) Rotate(ctx context.Context) (*SigningKey, error) {
	at := r.now()
	var next *SigningKey
	stored, err := r.store.UpdateSigningKeys(ctx, func(keys []*SigningKey) (*SigningKey, []string, error) {
		for _, next = range keys {
			if dbclock.Live(next.SignsAt, 2*r.interval, at) { // it waits already
				return nil, nil, nil
			}
		}
		next = newSigningKey(r.sealer, at, at.Add(2*r.interval))
		next.recordRotation(at)
		return next, r.retiredKeys(keys, at), nil
	})
	if err != nil {
		return nil, fmt.Errorf("rotate signing key: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.activate(stored, at); err != nil {
		return nil, err
	}
	return next, nil
}

// ErrNoSigningKey means that there is no signing key of the id.
var ErrNoSigningKey = errors.New("there is no signing key of this id")

// Revoke removes a key at once: no token that it signed is valid any more. It makes another,
// which signs at once, and records signing_key.revoked, by which the other nodes drop the key.
func (r *KeyRing) Revoke(ctx context.Context, id string) (*SigningKey, error) {
	at := r.now()
	var next *SigningKey
	stored, err := r.store.UpdateSigningKeys(ctx, func(keys []*SigningKey) (*SigningKey, []string, error) {
		if !slices.ContainsFunc(keys, func(k *SigningKey) bool { return k.ID == id }) {
			return nil, nil, ErrNoSigningKey
		}
		next = newSigningKey(r.sealer, at, at)
		next.recordRevocation(id, at)
		return next, []string{id}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("revoke signing key: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err = r.activate(stored, at)
	return next, err
}

// Drop removes a key from those that this node knows, as another node has revoked it.
func (r *KeyRing) Drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.keys.Load()
	if set == nil || !slices.ContainsFunc(set.keys, func(k loadedKey) bool { return k.id == id }) {
		return
	}
	without := slices.DeleteFunc(slices.Clone(set.keys), func(k loadedKey) bool { return k.id == id })
	if len(without) == 0 {
		r.keys.Store(nil) // the next token reads the key that replaces it
		return
	}
	r.keys.Store(&keySet{keys: without, published: encodeJWKS(without)})
}

// knows reports whether the key is one that this node uses.
func (r *KeyRing) knows(id string) bool {
	set := r.keys.Load()
	if set == nil {
		return false
	}
	_, ok := set.find(id, r.now())
	return ok
}

// retiredKeys returns the ids of keys that no token needs any more.
func (r *KeyRing) retiredKeys(keys []*SigningKey, at time.Time) []string {
	var ids []string
	for i, k := range keys {
		if until := r.retiresAt(keys, i); !until.IsZero() && !at.Before(until) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// RemoveRetired removes keys that no token needs any more.
func (r *KeyRing) RemoveRetired(ctx context.Context) error {
	at := r.now()
	stored, err := r.store.SigningKeys(ctx)
	if err != nil || len(r.retiredKeys(stored, at)) == 0 {
		return err
	}
	_, err = r.store.UpdateSigningKeys(ctx, func(keys []*SigningKey) (*SigningKey, []string, error) {
		return nil, r.retiredKeys(keys, at), nil
	})
	return err
}

// jwk is a public key as RFC 8037 has it.
type jwk struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	ID        string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	X         string `json:"x"`
}

func encodeJWKS(keys []loadedKey) []byte {
	set := struct {
		Keys []jwk `json:"keys"`
	}{make([]jwk, 0, len(keys))}
	for _, k := range keys {
		x := base64.RawURLEncoding.EncodeToString(publicKeyOf(k.private))
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", k.id, "sig", "EdDSA", x})
	}
	b, err := json.Marshal(set)
	if err != nil {
		panic("token: key set does not encode: " + err.Error()) // it is nothing but strings
	}
	return b
}

func publicKeyOf(k ed25519.PrivateKey) ed25519.PublicKey {
	return k.Public().(ed25519.PublicKey) // documented to be one
}
