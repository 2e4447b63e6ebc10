package cache

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/secrets"
)

// Lengths of the MAC of a value: bytes, and hexadecimal digits.
const (
	macSize   = 16
	macDigits = 2 * macSize
)

// maxClockSkew is how far the clock of the node that filled a value may be ahead of the reader's.
const maxClockSkew = time.Minute

// valueFormat writes and verifies the values of Redis. An attacker that can write to Redis can neither
// make a value nor change one, move it to another key, or prolong its life: key, version, time of the
// fill and data are under one MAC. It is safe for concurrent use.
type valueFormat struct {
	ttl  time.Duration
	macs sync.Pool // of *valueMAC
}

// valueMAC is a keyed hash with room for its message's head and for its sum.
type valueMAC struct {
	hash.Hash

	head, sum []byte
}

func newValueFormat(key [secrets.Size]byte, ttl time.Duration) *valueFormat {
	f := &valueFormat{ttl: ttl}
	f.macs.New = func() any { return &valueMAC{Hash: hmac.New(sha256.New, key[:])} }
	return f
}

// compute returns the MAC of a value under a key. The head is all before the MAC.
func (f *valueFormat) compute(key, head string, data []byte) (sum [macSize]byte) {
	m := f.macs.Get().(*valueMAC) //nolint:forcetypeassert // the pool holds nothing else
	defer f.macs.Put(m)
	m.Reset()
	m.head = binary.BigEndian.AppendUint32(m.head[:0], uint32(len(key))) //nolint:gosec // keys are short
	m.head = append(append(m.head, key...), head...)
	_, _ = m.Write(m.head) // documented never to fail
	_, _ = m.Write(data)
	m.sum = m.Sum(m.sum[:0])
	return [macSize]byte(m.sum)
}

// write returns the text of a value that is filled at the given time.
func (f *valueFormat) write(key string, version int, data []byte, at time.Time) string {
	head := "v" + strconv.Itoa(version) + ":" + strconv.FormatInt(at.UnixMilli(), 10) + ":"
	sum := f.compute(key, head, data)
	var b strings.Builder
	b.Grow(len(head) + macDigits + len(data))
	b.WriteString(head)
	b.WriteString(hex.EncodeToString(sum[:]))
	b.Write(data)
	return b.String()
}

// parse parses the text of a key. A reader that cannot use the text may replace exactly it, so every
// text is a fill token too.
func (f *valueFormat) parse(key, text string, now time.Time) redisSlot {
	s := redisSlot{token: text, key: key}
	if !strings.HasPrefix(text, "v") {
		return s
	}
	s.isValue = true
	digits, rest, _ := strings.Cut(text[1:], ":")
	filled, rest, found := strings.Cut(rest, ":")
	if !found || len(rest) < macDigits {
		return s
	}
	data := []byte(rest[macDigits:])
	var given [macSize]byte
	_, err := hex.Decode(given[:], []byte(rest[:macDigits]))
	want := f.compute(key, text[:len(text)-len(rest)], data)
	if err != nil || !hmac.Equal(given[:], want[:]) {
		return s
	}
	version, errVersion := strconv.Atoi(digits)
	ms, errFilled := strconv.ParseInt(filled, 10, 64)
	if errVersion != nil || errFilled != nil {
		return s
	}
	s.version, s.data, s.expires = version, data, time.UnixMilli(ms).Add(f.ttl)
	s.expired = !s.expires.After(now) || s.expires.After(now.Add(f.ttl+maxClockSkew))
	return s
}
