package auth

import (
	"slices"

	"github.com/backplane-dev/backplane/internal/uid"
)

// CredentialKind says by what kind of credential a caller is authenticated.
type CredentialKind string

// The kinds of credentials.
const (
	KindSession CredentialKind = "session" // an access token or a ticket of a signed-in session
	KindAPIKey  CredentialKind = "api_key" // an API key, also one that a trusted network stands for
	KindSystem  CredentialKind = "system"  // none: code of this process acts, not a caller
)

// Credential is what authenticates a principal, and what limits it beyond its
// roles. The zero Credential covers no scope. It is immutable.
type Credential struct {
	Kind   CredentialKind
	ID     string  // of the session or the API key; empty for KindSystem
	Scopes []Scope // all that the credential covers, unless it is Unscoped
}

// SessionCredential returns the credential of a session.
func SessionCredential(id uid.Session) Credential {
	return Credential{Kind: KindSession, ID: string(id)}
}

// APIKeyCredential returns the credential of an API key with the scopes.
func APIKeyCredential(id uid.APIKey, scopes ...Scope) Credential {
	return Credential{Kind: KindAPIKey, ID: string(id), Scopes: scopes}
}

// SystemCredential returns the credential of code of this process.
func SystemCredential() Credential { return Credential{Kind: KindSystem} }

// Unscoped reports whether roles alone limit what the credential covers.
func (c Credential) Unscoped() bool { return c.Kind == KindSession || c.Kind == KindSystem }

// Covers reports whether the credential covers the scope.
func (c Credential) Covers(s Scope) bool { return c.Unscoped() || slices.Contains(c.Scopes, s) }

// Equal reports whether two credentials are the same and cover the same.
func (c Credential) Equal(other Credential) bool {
	return c.Kind == other.Kind && c.ID == other.ID && slices.Equal(c.Scopes, other.Scopes)
}
