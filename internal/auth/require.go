package auth

import (
	"context"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Require returns the caller if its credential covers the scope, else a Forbidden error
// or that of NotSignedIn.
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

// Readable returns v if the caller's credential covers the scope of reading it, else nil: what a
// change returns to an API key that may change it and not read it.
func Readable[T any](caller *Principal, s Scope, v *T) *T {
	if !caller.May(s) {
		return nil
	}
	return v
}

// RequireSession returns the caller if a session authenticates it: API keys may not
// change credentials.
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

// RequireStaff returns the caller if it is STAFF or ADMIN and its credential covers
// the scope.
func RequireStaff(ctx context.Context, s Scope) (*Principal, error) {
	return requireRole(ctx, s, "This needs the role STAFF or ADMIN.", (*Principal).IsStaff)
}

// RequireAdmin returns the caller if it is ADMIN and its credential covers the
// scope.
func RequireAdmin(ctx context.Context, s Scope) (*Principal, error) {
	return requireRole(ctx, s, "This needs the role ADMIN.", func(p *Principal) bool { return p.Has(Admin) })
}

// RequireLister returns the user whose objects the caller may list, if its
// credential covers the scope: nil (all users) for STAFF and ADMIN, else the caller.
func RequireLister(ctx context.Context, s Scope) (only *uid.User, err error) {
	p, err := Require(ctx, s)
	if err != nil || p.IsStaff() {
		return nil, err
	}
	return &p.UserID, nil
}

// NarrowOwner narrows the user whose objects a list is filtered by, nil for all users, to what RequireLister
// allows; none says that the caller may list nothing of that user.
func NarrowOwner(ctx context.Context, s Scope, wanted *uid.User) (owner *uid.User, none bool, err error) {
	only, err := RequireLister(ctx, s)
	if err != nil || only == nil {
		return wanted, err != nil, err
	}
	return only, wanted != nil && *wanted != *only, nil
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

// NotSignedIn is the error for an anonymous caller; under WithLastKnown it is
// UNAVAILABLE, under WithRefused that of the credential.
func NotSignedIn(ctx context.Context) error {
	if err := Refused(ctx); err != nil {
		return err
	}
	if LastKnown(ctx) != nil {
		return fault.New(fault.Unavailable, "Credentials cannot be checked right now; try again in a moment.")
	}
	return fault.New(fault.Unauthenticated, "Sign in first.")
}
