// Package secrets owns what keeps secrets secret: the key of this installation,
// and what is sealed with it or derived from it.
//
// One random data key does the work. It lies in the database, wrapped by the
// master key that the operator holds, so that the master key can change without
// sealing anything anew, and so that a wrong one is noticed at the start.
// Without a master key the data key lies there bare.
package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Vault keeps a few small values in the database, by name. Each method is one
// transaction of its own and safe while other nodes do the same.
type Vault interface {
	// Secret stores fresh under the name if nothing is there yet, and returns what
	// is there then: of ten nodes that start at once, all get the same.
	Secret(ctx context.Context, name string, fresh []byte) ([]byte, error)
	// ReplaceSecret stores next under the name if old is what is there, and returns
	// what is there then.
	ReplaceSecret(ctx context.Context, name string, old, next []byte) ([]byte, error)
}

// Errors of Open, for whoever starts the server.
var (
	ErrKeyMissing = errors.New("this database is sealed with a secret key: start with BACKPLANE_SECRET_KEY, or the key file, that it was first started with")
	ErrKeyWrong   = errors.New("this database is sealed with another secret key: start with the BACKPLANE_SECRET_KEY, or the key file, that it was first started with")
)

// dataKey names the data key in the vault; bare is its first byte if no master
// key wraps it. A wrapped one starts with format.
const (
	dataKey = "data-key"
	bare    = 0
)

// OpenBox returns the box of the installation whose database the vault is in;
// the first call makes its data key. The zero key leaves the data key bare, and
// on a database that a key protects gives ErrKeyMissing. A key other than the
// one that wraps the data key gives ErrKeyWrong, unless one of former is the
// one, or the data key lies bare: then the data key is wrapped with key from now
// on. Nodes that run keep what they have.
func OpenBox(ctx context.Context, v Vault, key Key, former ...Key) (*Box, error) {
	stored, err := v.Secret(ctx, dataKey, wrap(key, random()))
	if err != nil {
		return nil, fmt.Errorf("read data key: %w", err)
	}
	for range 3 { // another node may change the wrapping under us, but not for ever
		data, current, err := unwrap(stored, key, former)
		if err != nil || current {
			return boxed(data, key, err)
		}
		next := wrap(key, data)
		now, err := v.ReplaceSecret(ctx, dataKey, stored, next)
		if err != nil {
			return nil, fmt.Errorf("wrap data key: %w", err)
		}
		if bytes.Equal(now, next) {
			return newBox(data, true), nil
		}
		stored = now
	}
	return nil, errors.New("wrap data key: other nodes keep changing it: are they started with different keys?")
}

func boxed(data [Size]byte, key Key, err error) (*Box, error) {
	if err != nil {
		return nil, err
	}
	return newBox(data, key.set), nil
}

func wrap(key Key, data [Size]byte) []byte {
	if !key.set {
		return append([]byte{bare}, data[:]...)
	}
	return seal(newAEAD(key.secret), dataKey, data[:])
}

// unwrap returns the data key, and whether it is wrapped as key wants it.
func unwrap(stored []byte, key Key, former []Key) (data [Size]byte, current bool, err error) {
	if len(stored) == 1+Size && stored[0] == bare {
		return [Size]byte(stored[1:]), !key.set, nil
	}
	if !key.set {
		return data, false, ErrKeyMissing
	}
	for i, k := range append([]Key{key}, former...) {
		if plain, err := open(newAEAD(k.secret), dataKey, stored); err == nil && len(plain) == Size && k.set {
			return [Size]byte(plain), i == 0, nil
		}
	}
	return data, false, ErrKeyWrong
}
