// Package seal owns what keeps secrets secret: the key of this installation,
// and what is sealed with it or derived from it.
//
// One random data key does the work. It lies in the database, wrapped by the
// master key that the operator holds, so that the master key can change without
// sealing anything anew, and so that a wrong one is noticed at the start.
package seal

import "context"

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
