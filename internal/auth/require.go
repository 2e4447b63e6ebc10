package auth

import (
	"context"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Require returns who is calling if its credential covers the scope, else an
// Unauthenticated or Forbidden error.
func Require(ctx context.Context, s Scope) (*Principal, error) {
	p := From(ctx)
	if p == nil {
		return nil, NotSignedIn(ctx)
	}
	if !p.May(s) {
		return nil, fault.New(fault.Forbidden, "This API key lacks the scope %s.", s)
	}
	return p, nil
}

// RequireSession returns who is calling if it signed in with a password: what
// changes credentials is not open to API keys.
func RequireSession(ctx context.Context) (*Principal, error) {
	p := From(ctx)
	if p == nil {
		return nil, NotSignedIn(ctx)
	}
	if p.SessionID() == "" {
		return nil, fault.New(fault.Forbidden, "This needs a signed-in session; an API key is not enough.")
	}
	return p, nil
}

// RequireStaff returns who is calling if it is STAFF or ADMIN and its
// credential covers the scope.
func RequireStaff(ctx context.Context, s Scope) (*Principal, error) {
	return requireRole(ctx, s, "This needs the role STAFF or ADMIN.", (*Principal).IsStaff)
}

// RequireAdmin returns who is calling if it is ADMIN and its credential covers
// the scope.
func RequireAdmin(ctx context.Context, s Scope) (*Principal, error) {
	return requireRole(ctx, s, "This needs the role ADMIN.", func(p *Principal) bool { return p.Has(Admin) })
}

// RequireLister returns whose things the caller may list, if its credential covers
// the scope: nil for everybody's, as STAFF and ADMIN may, else only its own.
func RequireLister(ctx context.Context, s Scope) (only *uid.User, err error) {
	p, err := Require(ctx, s)
	if err != nil || p.IsStaff() {
		return nil, err
	}
	return &p.UserID, nil
}

func requireRole(ctx context.Context, s Scope, refusal string, ok func(*Principal) bool) (*Principal, error) {
	p, err := Require(ctx, s)
	if err != nil {
		return nil, err
	}
	if !ok(p) {
		return nil, fault.New(fault.Forbidden, "%s", refusal)
	}
	return p, nil
}

// NotSignedIn is the error for a stranger; for a caller whose rights cannot be
// told at the moment it is UNAVAILABLE.
func NotSignedIn(ctx context.Context) error {
	if LastKnown(ctx) != nil {
		return fault.New(fault.Unavailable, "Credentials cannot be checked right now; try again in a moment.")
	}
	return fault.New(fault.Unauthenticated, "Sign in first.")
}
