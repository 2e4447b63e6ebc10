package secrets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
)

// Size is the size of keys, in bytes.
const Size = 32

// format is the first byte of what Seal makes: AES-256-GCM, a random nonce of
// 96 bits, the ciphertext, a tag of 128 bits. Random nonces are safe for 2^32
// values under one key; we seal a handful a year.
const format = 1

// ErrSealed is the error for bytes that this box has not sealed for the purpose.
var ErrSealed = errors.New("sealed value: damaged, of another purpose or of another key")

// Box seals secrets and derives keys. It is immutable and safe for concurrent
// use.
type Box struct {
	data      [Size]byte
	aead      cipher.AEAD
	protected bool
}

// Protected reports whether a master key stands between the database and what
// is sealed. If not, whoever reads the database can unseal it.
func (b *Box) Protected() bool { return b.protected }

// Seal encrypts plain so that only Open with the same purpose gives it back.
// Two calls never give the same bytes.
func (b *Box) Seal(purpose string, plain []byte) []byte {
	return seal(b.aead, purpose, plain)
}

// Open returns what was sealed for the purpose, or ErrSealed.
func (b *Box) Open(purpose string, sealed []byte) ([]byte, error) {
	return open(b.aead, purpose, sealed)
}

// Derive returns a key that depends on the label and the data key alone: the
// same on all nodes and for ever, and independent of those of other labels.
func (b *Box) Derive(label string) [Size]byte { return derive(b.data[:], "derive:"+label) }

// String keeps a box out of logs.
func (b *Box) String() string { return "seal.Box(…)" }

// GoString keeps a box out of logs.
func (b *Box) GoString() string { return b.String() }

func newBox(data [Size]byte, protected bool) *Box {
	return &Box{data, newAEAD(derive(data[:], "seal")), protected}
}

func newAEAD(key [Size]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("seal: " + err.Error()) // only for keys of a wrong size
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("seal: " + err.Error()) // only for ciphers that are not AES
	}
	return aead
}

func seal(aead cipher.AEAD, purpose string, plain []byte) []byte {
	return aead.Seal([]byte{format}, nil, plain, []byte(purpose)) //nolint:gosec // G407: this AEAD makes its own random nonce, and wants none
}

func open(aead cipher.AEAD, purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != format {
		return nil, ErrSealed
	}
	plain, err := aead.Open(nil, nil, sealed[1:], []byte(purpose))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

func derive(secret []byte, label string) [Size]byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "backplane:"+label, Size)
	if err != nil {
		panic("seal: " + err.Error()) // only for lengths beyond 255 hashes
	}
	return [Size]byte(key)
}

func random() (key [Size]byte) {
	_, _ = rand.Read(key[:]) // documented never to fail
	return key
}
