package session

import (
	"context"
	"errors"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/session/token"
)

// The details of security.CredentialRefused.
const (
	credentialMalformed = "MALFORMED"
	credentialUnknown   = "UNKNOWN" // of no session or key, or forged
	credentialExpired   = "EXPIRED"
	credentialRevoked   = "REVOKED" // or its account lost the right to act
)

// The details of security.RateLimited.
const (
	limitedSignUp     = "SIGN_UP"
	limitedNameChange = "NAME_CHANGE"
	limitedPassword   = "PASSWORD_CHANGE"
)

// The details of security.SignInFailed.
const (
	signInUnknown  = "UNKNOWN_LOGIN" // which is not recorded: it may be a password in the wrong field
	signInInactive = "INACTIVE"
	signInPassword = "WRONG_PASSWORD"
)

// record records a failure or refusal.
func (s *Service) record(e security.Event) {
	if s.cfg.Security != nil {
		s.cfg.Security(e)
	}
}

// eventOfOpening returns the security event of a session that is opened: by its own user.
func eventOfOpening(ctx context.Context, t security.EventType, opened *Session) security.Event {
	e := security.New(ctx, t, "", opened.CreatedAt)
	e.UserID, e.Actor, e.SessionID, e.APIKeyID = opened.UserID, string(opened.UserID), opened.ID, ""
	return e
}

// recordFailedSignIn records a sign-in with a wrong login or password; other errors are none of the caller's.
func (s *Service) recordFailedSignIn(ctx context.Context, acct *Account, err error) {
	if !fault.Is(err, fault.CredentialsWrong) {
		return
	}
	detail := signInPassword
	switch {
	case acct.UserID == "":
		detail = signInUnknown
	case !acct.Active:
		detail = signInInactive
	}
	e := security.New(ctx, security.SignInFailed, detail, s.now())
	e.UserID = acct.UserID
	s.record(e)
}

// recordThrottled records a sign-in that is refused with RATE_LIMITED, and returns the error.
func (s *Service) recordThrottled(ctx context.Context, acct *Account, err error) error {
	if !fault.Is(err, fault.RateLimited) {
		return err
	}
	e := security.New(ctx, security.SignInThrottled, "", s.now())
	e.UserID = acct.UserID
	s.record(e)
	return security.Recorded(err)
}

// refuseRefreshToken records that a refresh token is refused, and returns the error. x is its session, if the token is
// proved to be of one.
func (s *Service) refuseRefreshToken(ctx context.Context, detail string, x *Session) error {
	e := security.New(ctx, security.CredentialRefused, detail, s.now())
	if x != nil {
		e.UserID, e.SessionID = x.UserID, x.ID
	}
	s.record(e)
	return errRefreshToken()
}

// reasonOfEnd returns why a session has ended.
func reasonOfEnd(x *Session) string {
	if x.RevokedAt != nil {
		return credentialRevoked
	}
	return credentialExpired
}

// refuseLimited returns the error of a limit as the refusal of what was asked for.
func refuseLimited(err error, detail string) error {
	if !fault.Is(err, fault.RateLimited) {
		return err
	}
	return security.Refuse(security.RateLimited, detail, err)
}

// invalidCredential is token.ErrInvalid with what a security event says of it. The principal is nil unless the
// credential is proved to be its own.
type invalidCredential struct {
	detail      string
	principal   *auth.Principal
	refreshable bool // it is an access token that has expired
}

func (e *invalidCredential) Error() string { return token.ErrInvalid.Error() + ": " + e.detail }

func (e *invalidCredential) Unwrap() error { return token.ErrInvalid }

// refuseCredential returns the error for a credential that is not valid, whatever is wrong with it, unless its session may
// have another.
func refuseCredential(err error) error {
	r := &security.Refusal{Type: security.CredentialRefused, Detail: credentialUnknown, Err: errInvalidCredential()}
	if e, ok := errors.AsType[*invalidCredential](err); ok {
		r.Detail = e.detail
		if e.refreshable {
			r.Err = errTokenExpired()
		}
		if p := e.principal; p != nil {
			r.UserID, r.SessionID, r.APIKeyID = p.UserID, p.SessionID(), p.APIKeyID()
		}
	}
	return r
}
