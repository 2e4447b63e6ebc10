package session

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/secure/precis"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Lengths of passwords.
const (
	minPassword = 10   // characters
	maxPassword = 1024 // bytes; hashing must not cost by what a stranger sends
)

// cost is what hashing a password takes.
type cost struct {
	memory  uint32 // KiB
	passes  uint32
	threads uint8
}

// defaultCost is the first choice of the OWASP Password Storage Cheat Sheet for
// argon2id with little memory: 19 MiB, two passes.
var defaultCost = cost{19 * 1024, 2, 1}

// maxCost bounds what a stored hash may ask of us.
var maxCost = cost{256 * 1024, 16, 16}

const (
	saltSize = 16
	hashSize = 32
)

// hash is a hashed password. Its text is the PHC string format, which names the
// cost, so that old hashes stay good when the cost changes.
type hash struct {
	cost
	salt, sum []byte
}

func (h hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.memory, h.passes, h.threads, b64.EncodeToString(h.salt), b64.EncodeToString(h.sum))
}

// parseHash reads a text that String made; ok is false for any other.
func parseHash(s string) (h hash, ok bool) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 {
		return hash{}, false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads); err != nil {
		return hash{}, false
	}
	b64 := base64.RawStdEncoding.Strict()
	var err1, err2 error
	h.salt, err1 = b64.DecodeString(parts[4])
	h.sum, err2 = b64.DecodeString(parts[5])
	fits := h.passes > 0 && h.threads > 0 && h.memory > 0 &&
		h.memory <= maxCost.memory && h.passes <= maxCost.passes && h.threads <= maxCost.threads
	if err1 != nil || err2 != nil || !fits || len(h.sum) != hashSize || h.String() != s {
		return hash{}, false
	}
	return h, true
}

// hasher hashes passwords, a few at a time. Each takes many milliseconds of a
// core and megabytes of memory, so those who wait are few as well, and whoever
// finds the queue full is told so at once.
type hasher struct {
	cost    cost
	queue   chan struct{} // holds one value for each caller that waits or hashes
	working chan struct{} // holds one value for each caller that hashes
	derive  func(password, salt []byte, c cost) []byte
}

func newHasher(cfg Config) *hasher {
	return &hasher{
		cost:    cfg.cost,
		queue:   make(chan struct{}, cfg.Hashers+cfg.HashQueue),
		working: make(chan struct{}, cfg.Hashers),
		derive: func(password, salt []byte, c cost) []byte {
			return argon2.IDKey(password, salt, c.passes, c.memory, c.threads, hashSize)
		},
	}
}

// hash returns a new hash of the password, or PASSWORD_INVALID.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	clean, err := cleanPassword(password)
	if err != nil {
		return "", err
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // documented never to fail
	sum, err := h.work(ctx, clean, salt, h.cost)
	if err != nil {
		return "", err
	}
	return hash{h.cost, salt, sum}.String(), nil
}

// verify reports whether the password has the hash. It takes as long if stored
// is no hash at all, so that nobody learns which accounts there are.
func (h *hasher) verify(ctx context.Context, password, stored string) (bool, error) {
	want, known := parseHash(stored)
	if !known {
		want = hash{h.cost, make([]byte, saltSize), make([]byte, hashSize)}
	}
	clean, err := cleanPassword(password)
	if err != nil {
		clean, known = "", false // no account has it, but it costs the same
	}
	sum, err := h.work(ctx, clean, want.salt, want.cost)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sum, want.sum) == 1 && known, nil
}

// outdated reports whether a good hash should be made anew.
func (h *hasher) outdated(stored string) bool {
	got, ok := parseHash(stored)
	return ok && got.cost != h.cost
}

// work waits for its turn, then hashes.
func (h *hasher) work(ctx context.Context, password string, salt []byte, c cost) ([]byte, error) {
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return nil, errBusy()
	}
	select {
	case h.working <- struct{}{}:
		defer func() { <-h.working }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return nil, err // both were ready; nobody waits for the result
	}
	return h.derive([]byte(password), salt, c), nil
}

func errBusy() error {
	e := fault.New(fault.Unavailable, fault.ServerBusy, "Too many people are signing in right now; try again in a moment.")
	e.RetryAfter = time.Second
	return e
}

// cleanPassword returns the password as it is hashed: composed characters and
// spaces in one spelling (RFC 8265, OpaqueString), so that one password typed on
// two keyboards is one.
func cleanPassword(s string) (string, error) {
	if len(s) > maxPassword {
		return "", errPassword("it must be at most %d bytes long", maxPassword)
	}
	clean, err := precis.OpaqueString.String(s)
	switch {
	case utf8.RuneCountInString(s) < minPassword || err == nil && utf8.RuneCountInString(clean) < minPassword:
		return "", errPassword("it must be at least %d characters long", minPassword)
	case err != nil || !utf8.ValidString(s):
		return "", errPassword("it holds characters that are not for text")
	}
	return clean, nil
}

func errPassword(format string, args ...any) error {
	return fault.New(fault.Invalid, fault.PasswordInvalid, "This password cannot be used: "+format+".", args...).At("password")
}

// NewPassword returns a random password of 100 bits that can be read out loud.
func NewPassword() string {
	t := strings.ToLower(rand.Text()) // 5 bits a character
	return t[:5] + "-" + t[5:10] + "-" + t[10:15] + "-" + t[15:20]
}
