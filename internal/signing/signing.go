// Package signing signs messages between programs, and verifies them, by the rules of Standard
// Webhooks (https://www.standardwebhooks.com): the signature is an HMAC-SHA256 over the id of the
// message, the time of its sending and its body.
//
// It owns the format of secrets and the check of a message, both without I/O. It leaves to others
// which messages were received before: the id of a message is the key to drop repeats by.
package signing

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The headers of a signed message.
const (
	HeaderID        = "Webhook-Id"
	HeaderTimestamp = "Webhook-Timestamp"
	HeaderSignature = "Webhook-Signature"
)

// Tolerance is how far the time of a message may be from the verifier's clock, in both directions.
const Tolerance = 5 * time.Minute

// Bounds of what a verifier reads, in bytes and numbers.
const (
	maxID         = 256
	maxSignatures = 10 // space-separated, of a sender that rotates its secret
)

const (
	secretPrefix  = "whsec_"
	schemeV1      = "v1"
	minSecretSize = 24 // bytes, as Standard Webhooks recommends
	maxSecretSize = 64
)

// Secret is a key that a sender and a receiver share. It does not print.
type Secret struct{ key []byte }

// ParseSecret reads whsec_ and base64, as Standard Webhooks writes secrets: 24 to 64 bytes.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < minSecretSize || len(key) > maxSecretSize {
		return Secret{}, fmt.Errorf("a secret is %s and %d to %d bytes in base64", secretPrefix, minSecretSize, maxSecretSize)
	}
	return Secret{key}, nil
}

// String returns a fixed text.
func (Secret) String() string { return "(hidden)" }

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Message is a message with what its headers say.
type Message struct {
	ID        string // the same for repeats of one message
	Timestamp string // seconds since 1970
	Signature string // one or more, space-separated
	Body      []byte
}

// Sign returns the message with its signature.
func Sign(s Secret, id string, at time.Time, body []byte) Message {
	m := Message{ID: id, Timestamp: strconv.FormatInt(at.Unix(), 10), Body: body}
	m.Signature = schemeV1 + "," + base64.StdEncoding.EncodeToString(m.mac(s))
	return m
}

// The reasons why a message is refused.
var (
	ErrIncomplete = errors.New("the message has no id, timestamp or signature that can be read")
	ErrTimestamp  = errors.New("the timestamp of the message is too far from the clock of the receiver")
	ErrSignature  = errors.New("no signature of the message is by a secret that the receiver has")
)

// Verify checks that one of the secrets has signed the message, not longer ago than Tolerance, and
// returns the time of the message. There are two secrets while they are rotated. It compares all of
// them in constant time.
func Verify(secrets []Secret, m Message, now time.Time) (time.Time, error) {
	seconds, err := strconv.ParseInt(m.Timestamp, 10, 64)
	if err != nil || !isID(m.ID) || m.Timestamp != strconv.FormatInt(seconds, 10) {
		return time.Time{}, ErrIncomplete
	}
	at := time.Unix(seconds, 0).UTC()
	if at.Before(now.Add(-Tolerance)) || at.After(now.Add(Tolerance)) {
		return time.Time{}, ErrTimestamp
	}
	signatures := strings.Fields(m.Signature)
	if len(signatures) == 0 || len(signatures) > maxSignatures {
		return time.Time{}, ErrIncomplete
	}
	signed := false
	for _, s := range secrets {
		want := m.mac(s)
		for _, signature := range signatures {
			signed = isSignature(signature, want) || signed
		}
	}
	if !signed {
		return time.Time{}, ErrSignature
	}
	return at, nil
}

// isSignature reports whether the text is the signature of scheme v1 with this MAC.
func isSignature(text string, want []byte) bool {
	encoded, ok := strings.CutPrefix(text, schemeV1+",")
	got, err := base64.StdEncoding.Strict().DecodeString(encoded)
	return ok && err == nil && hmac.Equal(got, want)
}

// mac returns the MAC of id, timestamp and body. A point stands between them, so an id has none.
func (m Message) mac(s Secret) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte(m.ID + "." + m.Timestamp + "."))
	h.Write(m.Body)
	return h.Sum(nil)
}

// isID reports whether the text is an id of a message: printable ASCII without spaces and points.
// With a point, the border between id and timestamp would not be certain.
func isID(text string) bool {
	for _, r := range text {
		if r <= ' ' || r > '~' || r == '.' {
			return false
		}
	}
	return text != "" && len(text) <= maxID
}
