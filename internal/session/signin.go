package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// maxLogin bounds a login, in bytes: no user name or email address is longer.
const maxLogin = 1024

// Tokens is what a caller gets to act in a session. They are shown once.
type Tokens struct {
	Session      *Session
	AccessToken  string    // for the Authorization header
	RefreshToken string    // for the next Tokens; good until Session.ExpiresAt
	ExpiresAt    time.Time // when the access token expires
}

// LogValue keeps tokens out of logs.
func (t *Tokens) LogValue() slog.Value { return slog.StringValue(t.String()) }

// String keeps tokens out of logs.
func (t *Tokens) String() string { return "tokens of " + string(t.Session.ID) }

// SignIn opens a session for whoever knows the password of an account, named by
// its user name or email address. A wrong password, an account that does not
// exist, has no password or is not active: all are CREDENTIALS_WRONG and take
// equally long. RATE_LIMITED after too many failures of one account from one
// address, or of one address; SERVER_BUSY if too many wait for a hash.
func (s *Service) SignIn(ctx context.Context, login, password string) (*Tokens, error) {
	login = strings.TrimSpace(login)
	acct, err := s.find(ctx, login)
	if err != nil {
		return nil, err
	}
	t, err := s.gate.enter(ctx, cmp.Or(string(acct.UserID), foldLogin(login)))
	if err != nil {
		return nil, err
	}
	opened, err := s.prove(ctx, acct, password)
	s.gate.settle(ctx, t, err)
	if err != nil {
		return nil, err
	}
	return s.tokensOf(ctx, opened)
}

// prove opens a session of the account if the password is right.
func (s *Service) prove(ctx context.Context, acct *Account, password string) (*Session, error) {
	ok, err := s.hasher.verify(ctx, password, acct.Credential)
	if err != nil {
		return nil, err
	}
	if !ok || !acct.Active {
		return nil, errCredentials().At("password")
	}
	return s.open(ctx, acct, s.rehash(ctx, acct, password))
}

// find returns the account of that login, or an empty one.
func (s *Service) find(ctx context.Context, login string) (*Account, error) {
	if len(login) > maxLogin || login == "" || strings.ContainsRune(login, 0) {
		return &Account{}, nil // nobody is called that, and no database takes a NUL
	}
	acct, err := s.store.AccountByLogin(ctx, strings.ToValidUTF8(login, "\uFFFD"))
	if fault.Is(err, fault.UserNotFound) {
		return &Account{}, nil
	}
	return acct, err
}

// foldLogin names an account that does not exist as one that does would be
// found: as if spelling did not matter.
func foldLogin(login string) string {
	login = login[:min(len(login), maxLogin)]
	if strings.Contains(login, "@") {
		return strings.ToLower(norm.NFC.String(login))
	}
	return cases.Fold().String(norm.NFKC.String(login))
}

// rehash returns a hash at today's cost if the stored one is of another, else
// nothing. A full queue is no reason to refuse a right password.
func (s *Service) rehash(ctx context.Context, acct *Account, password string) string {
	if !s.hasher.outdated(acct.Credential) {
		return ""
	}
	fresh, err := s.hasher.hash(ctx, password)
	if err != nil {
		return ""
	}
	return fresh
}

// Open opens a session for a user who has proved who it is in another way than
// by password: by signing up a moment ago. The caller vouches for that.
// USER_NOT_FOUND if there is no such account, CREDENTIALS_WRONG if it may not act.
func (s *Service) Open(ctx context.Context, user uid.User) (*Tokens, error) {
	acct, err := s.store.AccountByID(ctx, user)
	if err != nil {
		return nil, err
	}
	opened, err := s.open(ctx, acct, "")
	if err != nil {
		return nil, err
	}
	return s.tokensOf(ctx, opened)
}

// open stores a new session of the account as it was seen, with a new hash of
// the same password unless that is empty. It fails if the account has lost its
// right to act or changed its password since: who knew the old one must not slip
// in behind the change.
func (s *Service) open(ctx context.Context, seen *Account, rehash string) (*Session, error) {
	at := s.now()
	opened := open(seen.UserID, auth.ClientFrom(ctx), s.life, at)
	err := s.store.UpdateHolder(ctx, seen.UserID, at, func(h *Holder) error {
		if !h.Active || h.CredentialVersion != seen.CredentialVersion {
			return errCredentials()
		}
		if rehash != "" {
			h.Credential = rehash
		}
		h.makeRoom(s.cfg.MaxSessions, at)
		h.Opened = opened
		return nil
	})
	return opened, err
}

// makeRoom ends the sessions unused longest until one more may be opened.
func (h *Holder) makeRoom(limit int, at time.Time) {
	byUse := slices.SortedStableFunc(slices.Values(h.Sessions), func(a, b *Session) int { return a.LastUsedAt.Compare(b.LastUsedAt) })
	for _, s := range byUse[:max(0, len(byUse)-limit+1)] {
		s.Revoke(TooMany, at)
	}
}

// tokensOf returns tokens of the session's present generation.
func (s *Service) tokensOf(ctx context.Context, x *Session) (*Tokens, error) {
	access, until, err := s.tokens.issue(ctx, x, s.now())
	if err != nil {
		return nil, err
	}
	x.Current = true
	return &Tokens{x, access, refreshTokenOf(s.refresh, x).String(), until}, nil
}

// Refresh exchanges a refresh token for new tokens. A token is good once, and
// for 30 seconds more, in which it gives tokens of the same generation as the
// first time; shown later it ends its session and records session.revoked. Every
// token that is not good gives REFRESH_TOKEN_INVALID.
func (s *Service) Refresh(ctx context.Context, token string) (*Tokens, error) {
	t, ok := parseRefreshToken(token)
	if !ok {
		return nil, errRefreshToken()
	}
	x, acct, err := s.store.SessionStanding(ctx, t.session)
	switch {
	case fault.Is(err, fault.SessionNotFound):
		return nil, errRefreshToken()
	case err != nil:
		return nil, err
	case !t.genuine(s.refresh, x) || !acct.Active:
		return nil, errRefreshToken() // a forged token must not end a session
	}
	at, good := s.now(), false
	x, err = s.store.UpdateSession(ctx, t.session, func(x *Session) error {
		good = x.Exchange(t.generation, s.life, at)
		return nil
	})
	if err != nil {
		return nil, goneIsInvalid(err)
	}
	if !good {
		s.sessions.forget(x.ID)
		return nil, errRefreshToken()
	}
	return s.tokensOf(ctx, x)
}

// goneIsInvalid is for a session that was removed a moment ago.
func goneIsInvalid(err error) error {
	if fault.Is(err, fault.SessionNotFound) {
		return errRefreshToken()
	}
	return err
}

// ChangePassword gives the caller's account another password and ends its other
// sessions; the caller's goes on, and so do API keys. It needs a session, not an
// API key. CREDENTIALS_WRONG if current is not the password; PASSWORD_INVALID;
// RATE_LIMITED and SERVER_BUSY as for SignIn.
func (s *Service) ChangePassword(ctx context.Context, current, next string) error {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return err
	}
	if _, err := cleanPassword(next); err != nil {
		return atNew(err)
	}
	acct, err := s.store.AccountByID(ctx, caller.UserID)
	if err != nil {
		return err
	}
	t, err := s.gate.enter(ctx, string(caller.UserID))
	if err != nil {
		return err
	}
	err = s.exchange(ctx, acct, caller.SessionID(), current, next)
	s.gate.settle(ctx, t, err)
	return err
}

// exchange replaces the password if current is the present one.
func (s *Service) exchange(ctx context.Context, acct *Account, keep uid.Session, current, next string) error {
	ok, err := s.hasher.verify(ctx, current, acct.Credential)
	if err != nil {
		return err
	}
	var fresh string
	if ok {
		if fresh, err = s.hasher.hash(ctx, next); err != nil {
			return err
		}
	}
	return s.replace(ctx, acct, keep, fresh, ok)
}

// replace stores the new hash and ends the other sessions. Whether the present
// password was right counts only in the transaction: a repeat of a call that
// went through has a present password that is not present any more, and its
// idempotency key makes it succeed.
func (s *Service) replace(ctx context.Context, seen *Account, keep uid.Session, fresh string, right bool) error {
	at := s.now()
	var ended []uid.Session
	err := s.store.UpdateHolder(ctx, seen.UserID, at, func(h *Holder) error {
		if !right || !h.Active || h.CredentialVersion != seen.CredentialVersion {
			return errCredentials().At("currentPassword")
		}
		h.Credential, h.CredentialVersion = fresh, h.CredentialVersion+1
		ended = h.endAllBut(keep, PasswordChanged, at)
		return nil
	})
	for _, id := range ended {
		s.sessions.forget(id)
	}
	return err
}

// endAllBut ends the live sessions but one and returns their ids.
func (h *Holder) endAllBut(keep uid.Session, why Reason, at time.Time) []uid.Session {
	var ended []uid.Session
	for _, x := range h.Sessions {
		if x.ID != keep {
			x.Revoke(why, at)
			ended = append(ended, x.ID)
		}
	}
	return ended
}

// atNew points a refused password to the field it came in.
func atNew(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e.At("newPassword")
	}
	return err
}

// errCredentials is the one error for everything that a stranger may not tell
// apart.
func errCredentials() *fault.Error {
	return fault.New(fault.Invalid, fault.CredentialsWrong, "The login or the password is wrong.")
}
