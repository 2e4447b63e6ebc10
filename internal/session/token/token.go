// Package token signs and verifies tokens (JWT, EdDSA): access tokens of sessions,
// and service tokens by which the services behind the gateway verify a user.
//
// It owns the signing keys. They lie sealed in the database, each node reads them
// again once an interval, and their public halves are published as a JSON Web Key
// Set. A rotated key is published two intervals before it signs, and stays until
// the last token that it signed has expired. Tokens state the caller, never what it
// may do. Whether a session is still live is left to package session.
package token

import "time"

// Config says what tokens state and how long they live. All of it must be set.
type Config struct {
	Issuer      string        // iss of all tokens
	Audience    string        // aud of access tokens, and the only one accepted
	AccessTTL   time.Duration // life of an access token
	KeyInterval time.Duration // keys are read again this often, and may be cached this long by verifiers
	CacheSize   int           // access tokens whose claims are cached, and service tokens that are issued again
}
