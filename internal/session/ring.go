package session

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/internal/secrets"
)

// ring is what a node knows of the signing keys. Every node reads them again
// once an interval, and a new key signs an interval after it was stored: by then
// every node, and every service that reads our key set as often, knows it.
type ring struct {
	store    SigningKeys
	box      *secrets.Box
	now      func() time.Time
	interval time.Duration
	life     time.Duration // of the tokens that the keys sign

	mu   sync.Mutex // held while reading the keys
	keys atomic.Pointer[keySet]
}

// keySet is the keys as they were read. It is immutable.
type keySet struct {
	readAt    time.Time
	keys      []openKey // by when they sign
	published []byte    // the JSON Web Key Set
}

type openKey struct {
	id      string
	private ed25519.PrivateKey
	signsAt time.Time
	until   time.Time // when its last token has expired; zero if none took over
}

// minReread keeps tokens of unknown keys from making us read the keys over and
// over.
const minReread = time.Second

// current returns the keys this node knows, and reads them first if it knows
// none yet.
func (r *ring) current(ctx context.Context) (*keySet, error) {
	if set := r.keys.Load(); set != nil {
		return set, nil
	}
	return r.reload(ctx, 0)
}

// reload reads the keys, unless somebody did less than tolerated ago. Where
// there are none it makes the first, which signs at once: nobody knows others.
func (r *ring) reload(ctx context.Context, tolerated time.Duration) (*keySet, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	if set := r.keys.Load(); set != nil && at.Sub(set.readAt) < tolerated {
		return set, nil
	}
	stored, err := r.store.SigningKeys(ctx)
	if err == nil && len(stored) == 0 {
		stored, err = r.store.UpdateSigningKeys(ctx, func(keys []*SigningKey) (*SigningKey, []string, error) {
			if len(keys) > 0 {
				return nil, nil, nil // another node was first
			}
			return newSigningKey(r.box, at, at), nil, nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", err)
	}
	return r.install(stored, at)
}

// install makes the stored keys the ones this node knows.
func (r *ring) install(stored []*SigningKey, at time.Time) (*keySet, error) {
	set := &keySet{readAt: at}
	for i, k := range stored {
		until := r.until(stored, i)
		if !until.IsZero() && !at.Before(until) {
			continue
		}
		private, err := k.private(r.box)
		if err != nil {
			return nil, fmt.Errorf("open signing key %s: %w", k.ID, err)
		}
		set.keys = append(set.keys, openKey{k.ID, private, k.SignsAt, until})
	}
	set.published = publish(set.keys)
	r.keys.Store(set)
	return set, nil
}

// until returns when the last token of a key has expired, zero if no younger
// key takes over. A node may learn an interval late that one did.
func (r *ring) until(keys []*SigningKey, i int) time.Time {
	if i+1 == len(keys) {
		return time.Time{}
	}
	return keys[i+1].SignsAt.Add(r.interval + r.life)
}

// signer returns the key that signs at the time: the youngest whose turn has
// come, or the oldest if that of none has, as may be when clocks differ.
func (r *ring) signer(ctx context.Context, at time.Time) (openKey, error) {
	set, err := r.current(ctx)
	if err != nil {
		return openKey{}, err
	}
	for i := len(set.keys) - 1; i > 0; i-- {
		if !at.Before(set.keys[i].signsAt) {
			return set.keys[i], nil
		}
	}
	return set.keys[0], nil // there is always one, see reload
}

// sign signs the claims by the key whose turn it is at the time, and names it.
func (r *ring) sign(ctx context.Context, at time.Time, c jwt.Claims) (string, error) {
	key, err := r.signer(ctx, at)
	if err != nil {
		return "", err
	}
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	tok.Header["kid"] = key.id
	return tok.SignedString(key.private)
}

// verifier returns the public key of that id, or errToken.
func (r *ring) verifier(ctx context.Context, id string) (ed25519.PublicKey, error) {
	set, err := r.current(ctx)
	if err != nil {
		return nil, err
	}
	if k, ok := set.find(id, r.now()); ok {
		return k, nil
	}
	set, err = r.reload(ctx, minReread)
	if err != nil {
		return nil, err
	}
	if k, ok := set.find(id, r.now()); ok {
		return k, nil
	}
	return nil, errToken
}

func (s *keySet) find(id string, at time.Time) (ed25519.PublicKey, bool) {
	for _, k := range s.keys {
		if k.id == id && (k.until.IsZero() || at.Before(k.until)) {
			return public(k.private), true
		}
	}
	return nil, false
}

// rotate stores a new key and removes those that no token needs any more. While
// a key waits for its turn it does nothing but return that one.
func (r *ring) rotate(ctx context.Context) (*SigningKey, error) {
	at := r.now()
	stored, err := r.store.UpdateSigningKeys(ctx, func(keys []*SigningKey) (*SigningKey, []string, error) {
		if n := len(keys); n > 0 && at.Before(keys[n-1].SignsAt) {
			return nil, nil, nil
		}
		next := newSigningKey(r.box, at, at.Add(r.interval))
		next.rotated(at)
		return next, r.spent(keys, at), nil
	})
	if err != nil {
		return nil, fmt.Errorf("rotate signing key: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.install(stored, at); err != nil {
		return nil, err
	}
	return stored[len(stored)-1], nil
}

// spent returns the ids of keys that no token needs any more.
func (r *ring) spent(keys []*SigningKey, at time.Time) []string {
	var ids []string
	for i, k := range keys {
		if until := r.until(keys, i); !until.IsZero() && !at.Before(until) {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// sweep removes keys that no token needs any more.
func (r *ring) sweep(ctx context.Context) error {
	at := r.now()
	stored, err := r.store.SigningKeys(ctx)
	if err != nil || len(r.spent(stored, at)) == 0 {
		return err
	}
	_, err = r.store.UpdateSigningKeys(ctx, func(keys []*SigningKey) (*SigningKey, []string, error) {
		return nil, r.spent(keys, at), nil
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

func publish(keys []openKey) []byte {
	set := struct {
		Keys []jwk `json:"keys"`
	}{make([]jwk, 0, len(keys))}
	for _, k := range keys {
		x := base64.RawURLEncoding.EncodeToString(public(k.private))
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", k.id, "sig", "EdDSA", x})
	}
	b, err := json.Marshal(set)
	if err != nil {
		panic("session: key set does not encode: " + err.Error()) // it is nothing but strings
	}
	return b
}

func public(k ed25519.PrivateKey) ed25519.PublicKey {
	return k.Public().(ed25519.PublicKey) // documented to be one
}
