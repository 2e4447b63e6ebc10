package session

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session/password"
	"github.com/backplane-dev/backplane/internal/uid"
)

// ChangePassword gives the caller's account another password and ends its other
// sessions; the caller's goes on, and so do API keys. It needs a session, not an
// API key. CREDENTIALS_WRONG if current is not the password; PASSWORD_INVALID;
// RATE_LIMITED and SERVER_BUSY as for SignIn.
func (s *Service) ChangePassword(ctx context.Context, cl claim.Claim, current, next string) error {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return err
	}
	if _, err := password.Normalize(next); err != nil {
		return atNewPassword(err)
	}
	acct, err := s.store.AccountByID(ctx, caller.UserID)
	if err != nil {
		return err
	}
	attempt, err := s.limiter.Begin(ctx, string(caller.UserID))
	if err != nil {
		return err
	}
	err = s.verifyAndReplacePassword(ctx, cl, acct, caller.SessionID(), current, next)
	s.limiter.Finish(ctx, attempt, err)
	return err
}

// verifyAndReplacePassword replaces the password if current is the present one.
func (s *Service) verifyAndReplacePassword(ctx context.Context, cl claim.Claim, acct *Account, keep uid.Session, current, next string) error {
	ok, err := s.passwords.Verify(ctx, current, acct.PasswordHash)
	if err != nil {
		return err
	}
	var fresh string
	if ok {
		if fresh, err = s.passwords.Hash(ctx, next); err != nil {
			return err
		}
	}
	return s.replacePassword(ctx, cl, acct, keep, fresh, ok)
}

// replacePassword stores the new hash and revokes the other sessions. Whether the
// current password was right counts only in the transaction: a replay of a call
// that succeeded states a password that is not current any more, and its
// idempotency key makes it succeed.
func (s *Service) replacePassword(ctx context.Context, cl claim.Claim, seen *Account, keep uid.Session, fresh string, right bool) error {
	at := s.now()
	var ended []uid.Session
	err := s.store.UpdateAccountSessions(ctx, cl, seen.UserID, at, func(h *AccountSessions) error {
		if !right || !h.Active || h.PasswordVersion != seen.PasswordVersion {
			return errCredentials().At("currentPassword")
		}
		h.PasswordHash, h.PasswordVersion = fresh, h.PasswordVersion+1
		ended = h.revokeAllExcept(keep, PasswordChanged, at)
		return nil
	})
	for _, id := range ended {
		s.sessionStates.invalidate(string(id))
	}
	return err
}

// revokeAllExcept ends the live sessions but one and returns their ids.
func (h *AccountSessions) revokeAllExcept(keep uid.Session, why Reason, at time.Time) []uid.Session {
	var ended []uid.Session
	for _, x := range h.Sessions {
		if x.ID != keep {
			x.Revoke(why, at)
			ended = append(ended, x.ID)
		}
	}
	return ended
}

// atNewPassword points a refused password to the field it came in.
func atNewPassword(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e.At("newPassword")
	}
	return err
}
