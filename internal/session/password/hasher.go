package password

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"runtime"

	"github.com/backplane-dev/backplane/internal/auth"
)

// Config tunes a Hasher. The zero value is ready to use.
type Config struct {
	Concurrency int  // hashes at a time; default one a core
	Queue       int  // callers that may wait for a hash; default 100
	Cost        Cost // of new hashes; default 19 MiB, two passes, one thread
	// DeriveKey derives hashes; default Argon2id. Tests count calls with it.
	DeriveKey func(password, salt []byte, c Cost) []byte
}

// Hasher hashes and checks passwords. It is safe for concurrent use.
type Hasher struct {
	cost      Cost
	queue     *queue // a permit for each caller that hashes
	deriveKey func(password, salt []byte, c Cost) []byte
}

// NewHasher returns a Hasher.
func NewHasher(cfg Config) *Hasher {
	h := &Hasher{
		cost:      cmp.Or(cfg.Cost, defaultCost),
		queue:     &queue{permits: cmp.Or(cfg.Concurrency, runtime.GOMAXPROCS(0)), places: cmp.Or(cfg.Queue, 100)},
		deriveKey: cfg.DeriveKey,
	}
	if h.deriveKey == nil {
		h.deriveKey = Argon2id
	}
	return h
}

// Hash returns a new hash of the password, on behalf of the account: any name by which the callers
// from one address share the permits. It gives PASSWORD_INVALID as Normalize does, and SERVER_BUSY
// if the queue is full.
func (h *Hasher) Hash(ctx context.Context, account, password string) (string, error) {
	normalized, err := Normalize(password)
	if err != nil {
		return "", err
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // documented never to fail
	sum, err := h.deriveWithPermit(ctx, account, normalized, salt, h.cost)
	if err != nil {
		return "", err
	}
	return hash{h.cost, salt, sum}.String(), nil
}

// Verify reports whether the password of the account has the hash. It takes as long if stored
// is no hash at all, so that timing does not reveal which accounts exist.
func (h *Hasher) Verify(ctx context.Context, account, password, stored string) (bool, error) {
	want, known := parseHash(stored)
	if !known {
		want = hash{h.cost, make([]byte, saltSize), make([]byte, hashSize)}
	}
	normalized, err := Normalize(password)
	if err != nil {
		normalized, known = "", false // no account has it, but it costs the same
	}
	sum, err := h.deriveWithPermit(ctx, account, normalized, want.salt, want.Cost)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sum, want.sum) == 1 && known, nil
}

// Outdated reports whether the hash is valid but was made at another cost than
// new ones are.
func (h *Hasher) Outdated(stored string) bool {
	got, ok := parseHash(stored)
	return ok && got.Cost != h.cost
}

// deriveWithPermit hashes once there is a permit.
func (h *Hasher) deriveWithPermit(ctx context.Context, account, password string, salt []byte, c Cost) ([]byte, error) {
	if err := h.queue.acquire(ctx, auth.ClientFrom(ctx).Network(), account); err != nil {
		return nil, err
	}
	defer h.queue.release()
	if err := ctx.Err(); err != nil {
		return nil, err // the caller left while it got the permit
	}
	return h.deriveKey([]byte(password), salt, c), nil
}
