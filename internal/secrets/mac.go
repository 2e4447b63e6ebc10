package secrets

import (
	"crypto/hmac"
	"crypto/sha256"
	"strconv"
)

// MAC returns the HMAC-SHA256 of the parts, each after its length, so that no two
// lists of parts are one message.
func MAC(secret [Size]byte, parts ...string) []byte {
	h := hmac.New(sha256.New, secret[:])
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p)) // documented never to fail
	}
	return h.Sum(nil)
}
