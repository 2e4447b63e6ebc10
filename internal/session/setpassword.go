package session

import (
	"context"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/session/password"
	"github.com/backplane-dev/backplane/internal/uid"
)

// SetPassword gives the account of another user a new password, ends its sessions, and if revokeKeys its API
// keys. It needs ADMIN in a session; for one's own account there is ChangePassword, which asks for the current
// password. PASSWORD_INVALID, USER_NOT_FOUND, and USER_NOT_ACTIVE for an account that may not sign in.
func (s *Service) SetPassword(ctx context.Context, cl claim.Claim, user uid.User, next string, revokeKeys bool) error {
	caller, err := auth.RequireSession(ctx)
	switch {
	case err != nil:
		return err
	case !caller.Has(auth.Admin):
		return fault.New(fault.Forbidden, "Only ADMIN may set the passwords of others.")
	case caller.Owns(user):
		return fault.New(fault.Forbidden, "This is your own account: changePassword changes its password.").At("id")
	}
	return s.ResetPassword(ctx, cl, user, next, revokeKeys)
}

// ResetPassword is SetPassword for the operator and checks no permission: no transport offers it.
func (s *Service) ResetPassword(ctx context.Context, cl claim.Claim, user uid.User, next string, revokeKeys bool) error {
	if !user.Valid() {
		return errOwner().At("id")
	}
	names, err := s.store.AccountNames(ctx, user)
	if err != nil {
		return err
	}
	if err := atNewPassword(password.CheckNew(next, names...)); err != nil {
		return err
	}
	fresh, err := s.passwords.Hash(ctx, auth.From(ctx).Actor(), next)
	if err != nil {
		return err
	}
	_, err = s.endCredentials(ctx, cl, user, &ending{why: PasswordChanged, keys: revokeKeys}, func(a *Credentials) error {
		if !a.Active {
			return fault.New(fault.UserNotActive, "This account may not sign in; activate it first.").At("id")
		}
		a.PasswordHash, a.PasswordVersion = fresh, a.PasswordVersion+1
		e := security.New(ctx, security.PasswordSet, "", s.now())
		e.UserID = a.UserID
		a.Security = append(a.Security, e)
		return nil
	})
	return err
}
