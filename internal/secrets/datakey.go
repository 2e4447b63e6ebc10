// Package secrets protects secrets at rest by envelope encryption, and derives
// keys.
//
// One random data key per installation does the work: a Sealer encrypts values
// with it and derives other keys from it. It lies in the database, wrapped (encrypted)
// by the master key of the operator, so that the master key can be rotated without
// sealing any value anew, and so that a wrong one is noticed at the start. Without
// a master key the data key lies there unwrapped.
package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Store keeps a few small values in the database, by name. Each method is one
// transaction of its own and safe while other nodes do the same.
type Store interface {
	// Secret stores fresh under the name if nothing is there yet, and returns what
	// is there then: of ten nodes that start at once, all get the same.
	Secret(ctx context.Context, name string, fresh []byte) ([]byte, error)
	// ReplaceSecret stores next under the name if old is what is there, and returns
	// what is there then.
	ReplaceSecret(ctx context.Context, name string, old, next []byte) ([]byte, error)
}

// Errors of OpenSealer, for the operator that starts the server.
var (
	ErrMasterKeyMissing = errors.New("this database is sealed with a secret key: start with BACKPLANE_SECRET_KEY, or the key file, that it was first started with")
	ErrMasterKeyWrong   = errors.New("this database is sealed with another secret key: start with the BACKPLANE_SECRET_KEY, or the key file, that it was first started with")
)

// dataKey names the data key in the store; unwrappedFormat is its first byte if no
// master key wraps it. A wrapped one starts with sealedFormat.
const (
	dataKey         = "data-key"
	unwrappedFormat = 0
)

// OpenSealer returns the sealer of the installation whose database the store is
// in; the first call makes its data key. The zero key leaves the data key
// unwrapped, and gives ErrMasterKeyMissing if a master key wraps it. A key other
// than the one that wraps the data key gives ErrMasterKeyWrong, unless one of
// former is the one, or the data key is unwrapped: then the data key is wrapped
// with key from now on. Running nodes keep the data key that they have.
func OpenSealer(ctx context.Context, store Store, key MasterKey, former ...MasterKey) (*Sealer, error) {
	stored, err := store.Secret(ctx, dataKey, wrapDataKey(key, randomKey()))
	if err != nil {
		return nil, fmt.Errorf("read data key: %w", err)
	}
	for range 3 { // another node may rewrap the data key meanwhile, but not for ever
		data, current, err := unwrapDataKey(stored, key, former)
		if err != nil || current {
			return sealerWith(data, key, err)
		}
		next := wrapDataKey(key, data)
		now, err := store.ReplaceSecret(ctx, dataKey, stored, next)
		if err != nil {
			return nil, fmt.Errorf("wrap data key: %w", err)
		}
		if bytes.Equal(now, next) {
			return newSealer(data, true), nil
		}
		stored = now
	}
	return nil, errors.New("wrap data key: other nodes keep changing it: are they started with different keys?")
}

func sealerWith(data [Size]byte, key MasterKey, err error) (*Sealer, error) {
	if err != nil {
		return nil, err
	}
	return newSealer(data, key.set), nil
}

func wrapDataKey(key MasterKey, data [Size]byte) []byte {
	if !key.set {
		return append([]byte{unwrappedFormat}, data[:]...)
	}
	return encrypt(newAEAD(key.secret), dataKey, data[:])
}

// unwrapDataKey returns the data key, and whether it is wrapped as key wants it.
func unwrapDataKey(stored []byte, key MasterKey, former []MasterKey) (data [Size]byte, current bool, err error) {
	if len(stored) == 1+Size && stored[0] == unwrappedFormat {
		return [Size]byte(stored[1:]), !key.set, nil
	}
	if !key.set {
		return data, false, ErrMasterKeyMissing
	}
	for i, k := range append([]MasterKey{key}, former...) {
		if plain, err := decrypt(newAEAD(k.secret), dataKey, stored); err == nil && len(plain) == Size && k.set {
			return [Size]byte(plain), i == 0, nil
		}
	}
	return data, false, ErrMasterKeyWrong
}
