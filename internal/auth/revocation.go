package auth

import "github.com/backplane-dev/backplane/internal/uid"

// Revocation names a credential that has ended, or a user whose rights or name
// have changed: deactivated, deleted, with other roles, or renamed. The zero
// value says that any principal may be concerned.
type Revocation struct {
	CredentialID string // of a session or API key; empty if a user is named
	User         uid.User
}

// Concerns reports whether the principal must be authenticated again.
func (r Revocation) Concerns(p *Principal) bool {
	switch {
	case r == Revocation{}:
		return true
	case p == nil:
		return false
	default:
		return r.User != "" && r.User == p.UserID || r.CredentialID != "" && r.CredentialID == p.Credential.ID
	}
}
