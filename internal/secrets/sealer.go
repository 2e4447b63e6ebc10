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

// sealedFormat is the first byte of what Seal makes: AES-256-GCM, a random nonce of
// 96 bits, the ciphertext, a tag of 128 bits. Random nonces are safe for 2^32
// values under one key; we seal a handful a year.
const sealedFormat = 1

// ErrSealed is the error for bytes that this sealer has not sealed for the purpose.
var ErrSealed = errors.New("sealed value: damaged, of another purpose or of another key")

// Sealer encrypts secrets and derives keys, both by the data key. It is immutable
// and safe for concurrent use.
type Sealer struct {
	data [Size]byte
	aead cipher.AEAD
}

// Seal encrypts plain so that only Unseal with the same purpose gives it back.
// Two calls never give the same bytes.
func (s *Sealer) Seal(purpose string, plain []byte) []byte {
	return encrypt(s.aead, purpose, plain)
}

// Unseal decrypts what was sealed for the purpose, or returns ErrSealed.
func (s *Sealer) Unseal(purpose string, sealed []byte) ([]byte, error) {
	return decrypt(s.aead, purpose, sealed)
}

// Derive returns a key that depends on the label and the data key alone: the
// same on all nodes and for ever, and independent of those of other labels.
func (s *Sealer) Derive(label string) [Size]byte { return deriveKey(s.data[:], "derive:"+label) }

// String keeps the data key out of logs.
func (s *Sealer) String() string { return "secrets.Sealer(…)" }

// GoString keeps the data key out of logs.
func (s *Sealer) GoString() string { return s.String() }

func newSealer(data [Size]byte) *Sealer {
	return &Sealer{data, newAEAD(deriveKey(data[:], "seal"))}
}

func newAEAD(key [Size]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("secrets: " + err.Error()) // only for keys of a wrong size
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("secrets: " + err.Error()) // only for ciphers that are not AES
	}
	return aead
}

func encrypt(aead cipher.AEAD, purpose string, plain []byte) []byte {
	return aead.Seal([]byte{sealedFormat}, nil, plain, []byte(purpose)) //nolint:gosec // G407: this AEAD makes its own random nonce, and wants none
}

func decrypt(aead cipher.AEAD, purpose string, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != sealedFormat {
		return nil, ErrSealed
	}
	plain, err := aead.Open(nil, nil, sealed[1:], []byte(purpose))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

func deriveKey(secret []byte, label string) [Size]byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "backplane:"+label, Size)
	if err != nil {
		panic("secrets: " + err.Error()) // only for lengths beyond 255 hashes
	}
	return [Size]byte(key)
}

func randomKey() (key [Size]byte) {
	_, _ = rand.Read(key[:]) // documented never to fail
	return key
}
