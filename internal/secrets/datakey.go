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
	// StoredSecret returns what is stored under the name, nil if nothing is. It only reads.
	StoredSecret(ctx context.Context, name string) ([]byte, error)
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
			return sealerWith(data, err)
		}
		next := wrapDataKey(key, data)
		now, err := store.ReplaceSecret(ctx, dataKey, stored, next)
		if err != nil {
			return nil, fmt.Errorf("wrap data key: %w", err)
		}
		if bytes.Equal(now, next) {
			return newSealer(data), nil
		}
		stored = now
	}
	return nil, errors.New("wrap data key: other nodes keep changing it: are they started with different keys?")
}

// JoinSealer is OpenSealer for commands that run beside servers: it makes the data key of a
// new installation, and otherwise leaves it wrapped as it is.
func JoinSealer(ctx context.Context, store Store, key MasterKey, former ...MasterKey) (*Sealer, error) {
	stored, err := store.Secret(ctx, dataKey, wrapDataKey(key, randomKey()))
	if err != nil {
		return nil, fmt.Errorf("read data key: %w", err)
	}
	data, _, err := unwrapDataKey(stored, key, former)
	return sealerWith(data, err)
}

// Protection says how the data key of an installation is protected.
type Protection int

// The kinds of protection.
const (
	NoDataKey   Protection = iota // the installation was never started
	Unprotected                   // no master key wraps it
	Protected                     // the given key wraps it, or one of the former
	OtherKey                      // a key that was not given wraps it
)

// Inspect returns how the data key is protected. It changes nothing.
func Inspect(ctx context.Context, store Store, key MasterKey, former ...MasterKey) (Protection, error) {
	stored, err := store.StoredSecret(ctx, dataKey)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read data key: %w", err)
	case stored == nil:
		return NoDataKey, nil
	case isUnwrapped(stored):
		return Unprotected, nil
	}
	if _, _, err := unwrapDataKey(stored, key, former); err != nil {
		return OtherKey, nil //nolint:nilerr // that is the result
	}
	return Protected, nil
}

// Rewrap wraps the data key with key from now on, if old is what wraps it. Running nodes keep
// the data key that they have; a node that starts needs the new key.
func Rewrap(ctx context.Context, store Store, key, old MasterKey) error {
	stored, err := store.StoredSecret(ctx, dataKey)
	switch {
	case err != nil:
		return fmt.Errorf("read data key: %w", err)
	case stored == nil:
		return errors.New("this database has no data key yet: start the server once")
	case !key.set:
		return errors.New("BACKPLANE_SECRET_KEY must be the new key")
	}
	data, _, err := unwrapDataKey(stored, old, nil)
	if err != nil {
		return err
	}
	next := wrapDataKey(key, data)
	now, err := store.ReplaceSecret(ctx, dataKey, stored, next)
	if err != nil {
		return fmt.Errorf("wrap data key: %w", err)
	}
	if !bytes.Equal(now, next) {
		return errors.New("wrap data key: another process changed it meanwhile")
	}
	return nil
}

func sealerWith(data [Size]byte, err error) (*Sealer, error) {
	if err != nil {
		return nil, err
	}
	return newSealer(data), nil
}

func wrapDataKey(key MasterKey, data [Size]byte) []byte {
	if !key.set {
		return append([]byte{unwrappedFormat}, data[:]...)
	}
	return encrypt(newAEAD(key.secret), dataKey, data[:])
}

// isUnwrapped reports whether no master key wraps the stored data key.
func isUnwrapped(stored []byte) bool { return len(stored) == 1+Size && stored[0] == unwrappedFormat }

// unwrapDataKey returns the data key, and whether it is wrapped as key wants it.
func unwrapDataKey(stored []byte, key MasterKey, former []MasterKey) (data [Size]byte, current bool, err error) {
	if isUnwrapped(stored) {
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
