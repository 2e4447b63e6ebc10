package password

import (
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost is what one hash takes.
type Cost struct {
	Memory  uint32 // KiB
	Passes  uint32
	Threads uint8
}

// defaultCost is the first choice of the OWASP Password Storage Cheat Sheet for
// argon2id with little memory: 19 MiB, two passes.
var defaultCost = Cost{19 * 1024, 2, 1}

// maxCost bounds the cost that a stored hash may name.
var maxCost = Cost{256 * 1024, 16, 16}

const (
	saltSize = 16
	hashSize = 32
)

// Argon2id derives the hash of a password at the cost.
func Argon2id(password, salt []byte, c Cost) []byte {
	return argon2.IDKey(password, salt, c.Passes, c.Memory, c.Threads, hashSize)
}

// hash is a hashed password. Its text is the PHC string format, which names the
// cost, so that old hashes stay valid when the cost changes.
type hash struct {
	Cost
	salt, sum []byte
}

func (h hash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		h.Memory, h.Passes, h.Threads, b64.EncodeToString(h.salt), b64.EncodeToString(h.sum))
}

// parseHash reads a text that String made; ok is false for any other.
func parseHash(s string) (h hash, ok bool) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 {
		return hash{}, false
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.Memory, &h.Passes, &h.Threads); err != nil {
		return hash{}, false
	}
	b64 := base64.RawStdEncoding.Strict()
	var err1, err2 error
	h.salt, err1 = b64.DecodeString(parts[4])
	h.sum, err2 = b64.DecodeString(parts[5])
	fits := h.Passes > 0 && h.Threads > 0 && h.Memory > 0 &&
		h.Memory <= maxCost.Memory && h.Passes <= maxCost.Passes && h.Threads <= maxCost.Threads
	if err1 != nil || err2 != nil || !fits || len(h.sum) != hashSize || h.String() != s {
		return hash{}, false
	}
	return h, true
}
