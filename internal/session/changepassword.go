package session

import (
	"context"
	"errors"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/session/password"
)

// ChangePassword gives the caller's account another password and ends its other
// sessions, and if revokeKeys its API keys; the caller's session goes on. It needs a
// session, not an API key. CREDENTIALS_WRONG if current is not the password, PASSWORD_INVALID, or both;
// RATE_LIMITED and SERVER_BUSY as for SignIn.
func (s *Service) ChangePassword(ctx context.Context, cl claim.Claim, current, next string, revokeKeys bool) error {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return err
	}
	names, err := s.store.AccountNames(ctx, caller.UserID)
	if err != nil {
		return err
	}
	invalid := atNewPassword(password.CheckNew(next, names...))
	acct, err := s.store.AccountByID(ctx, caller.UserID)
	if err != nil {
		return err
	}
	attempt, err := s.limiter.Begin(ctx, string(caller.UserID))
	if err != nil {
		return refuseLimited(err, limitedPassword)
	}
	if invalid == nil {
		err = s.verifyAndReplacePassword(ctx, cl, acct, current, next, &ending{PasswordChanged, caller.SessionID(), revokeKeys})
	} else {
		err = s.checkCurrentPassword(ctx, acct, current)
	}
	s.limiter.Finish(ctx, attempt, err)
	if fault.Is(err, fault.CredentialsWrong) {
		s.record(security.New(ctx, security.PasswordChangeFailed, "", s.now()))
	}
	return joinMistakes(err, invalid)
}

// joinMistakes returns both errors of an input, or one that is not about the input alone.
func joinMistakes(err, invalid error) error {
	if err == nil || fault.From(err).Kind().Mendable() {
		return errors.Join(err, invalid)
	}
	return err
}

// checkCurrentPassword returns CREDENTIALS_WRONG unless current is the present password: for a call that changes nothing.
func (s *Service) checkCurrentPassword(ctx context.Context, acct *Account, current string) error {
	ok, err := s.passwords.Verify(ctx, string(acct.UserID), current, acct.PasswordHash)
	if err == nil && !ok {
		return errCredentials().At("currentPassword")
	}
	return err
}

// verifyAndReplacePassword replaces the password if current is the present one.
func (s *Service) verifyAndReplacePassword(ctx context.Context, cl claim.Claim, acct *Account, current, next string, e *ending) error {
	ok, err := s.passwords.Verify(ctx, string(acct.UserID), current, acct.PasswordHash)
	if err != nil {
		return err
	}
	var fresh string
	if ok {
		if fresh, err = s.passwords.Hash(ctx, string(acct.UserID), next); err != nil {
			return err
		}
	}
	return s.replacePassword(ctx, cl, acct, fresh, ok, e)
}

// replacePassword stores the new hash and revokes what e says. Whether the
// current password was right counts only in the transaction: a replay of a call
// that succeeded states a password that is not current any more, and its
// idempotency key makes it succeed.
func (s *Service) replacePassword(ctx context.Context, cl claim.Claim, seen *Account, fresh string, right bool, e *ending) error {
	_, err := s.endCredentials(ctx, cl, seen.UserID, e, func(a *Credentials) error {
		if !right || !a.Active || a.PasswordVersion != seen.PasswordVersion {
			return errCredentials().At("currentPassword")
		}
		a.PasswordHash, a.PasswordVersion = fresh, a.PasswordVersion+1
		a.Security = append(a.Security, security.New(ctx, security.PasswordChanged, "", s.now()))
		return nil
	})
	return err
}

// atNewPassword points a refused password to the field it came in.
func atNewPassword(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e.At("newPassword")
	}
	return err
}
