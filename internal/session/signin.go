package session

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
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

// SignIn opens a session for a caller that knows the password of an account, named
// by its user name or email address. A wrong password, an account that does not
// exist, has no password or is not active: all are CREDENTIALS_WRONG and take
// equally long. RATE_LIMITED after too many failures, or too many sign-ins, of one account from
// one address, or of one address; SERVER_BUSY if too many callers wait for a hash.
func (s *Service) SignIn(ctx context.Context, login, password string) (*Tokens, error) {
	login = strings.TrimSpace(login)
	acct, err := s.findAccount(ctx, login)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(string(acct.UserID), foldLogin(login))
	attempt, err := s.limiter.Begin(ctx, name)
	if err != nil {
		return nil, s.recordThrottled(ctx, acct, err)
	}
	opened, err := s.verifyPassword(ctx, name, acct, password)
	s.limiter.Finish(ctx, attempt, err)
	if err != nil {
		s.recordFailedSignIn(ctx, acct, err)
		return nil, err
	}
	return s.issueTokens(ctx, opened)
}

// verifyPassword opens a session of the account, which shares the hashing permits under the name, if the
// password is right.
func (s *Service) verifyPassword(ctx context.Context, name string, acct *Account, password string) (*Session, error) {
	ok, err := s.passwords.Verify(ctx, name, password, acct.PasswordHash)
	if err != nil {
		return nil, err
	}
	if !ok || !acct.Active {
		return nil, errCredentials().At("password")
	}
	return s.openSession(ctx, acct, s.rehashIfOutdated(ctx, acct, password), security.SignInSucceeded)
}

// findAccount returns the account of that login, or an empty one.
func (s *Service) findAccount(ctx context.Context, login string) (*Account, error) {
	if len(login) > maxLogin || login == "" || strings.ContainsRune(login, 0) {
		return &Account{}, nil // no account has such a login, and no database takes a NUL
	}
	acct, err := s.store.AccountByLogin(ctx, strings.ToValidUTF8(login, "\uFFFD"))
	if fault.Is(err, fault.UserNotFound) {
		return &Account{}, nil
	}
	return acct, err
}

// foldLogin returns the name by which guesses at an account that does not exist
// are counted: by the folding that finds existing accounts.
func foldLogin(login string) string {
	login = login[:min(len(login), maxLogin)]
	if strings.Contains(login, "@") {
		return strings.ToLower(norm.NFC.String(login))
	}
	return cases.Fold().String(norm.NFKC.String(login))
}

// rehashIfOutdated returns a hash at the configured cost if the stored one is of another,
// else nothing. A full queue is no reason to refuse a right password.
func (s *Service) rehashIfOutdated(ctx context.Context, acct *Account, password string) string {
	if !s.passwords.Outdated(acct.PasswordHash) {
		return ""
	}
	fresh, err := s.passwords.Hash(ctx, string(acct.UserID), password)
	if err != nil {
		return ""
	}
	return fresh
}

// Open opens a session for a user that is authenticated in another way than by
// password: by signing up a moment ago. The calling code vouches for that.
// USER_NOT_FOUND if there is no such account, CREDENTIALS_WRONG if it may not act.
func (s *Service) Open(ctx context.Context, user uid.User) (*Tokens, error) {
	acct, err := s.store.AccountByID(ctx, user)
	if err != nil {
		return nil, err
	}
	opened, err := s.openSession(ctx, acct, "", security.SignUpSucceeded)
	if err != nil {
		return nil, err
	}
	return s.issueTokens(ctx, opened)
}

// openSession stores a new session of the account as it was seen, with a new hash of
// the same password unless that is empty. It fails if the account has lost its
// right to act or changed its password since: a sign-in with the old password must
// not take effect after the change. With the session it stores a security event of the type.
func (s *Service) openSession(ctx context.Context, seen *Account, rehash string, as security.EventType) (*Session, error) {
	at := s.now()
	opened := newSession(seen.UserID, auth.ClientFrom(ctx), s.lifetimes, at)
	err := s.store.UpdateAccountSessions(ctx, claim.None, seen.UserID, at, func(h *AccountSessions) error {
		if !h.Active || h.PasswordVersion != seen.PasswordVersion {
			return errCredentials()
		}
		if rehash != "" {
			h.PasswordHash = rehash
		}
		h.revokeLeastRecentlyUsed(s.cfg.MaxSessions, at)
		h.Opened = opened
		h.Security = append(h.Security, eventOfOpening(ctx, as, opened))
		return nil
	})
	return opened, err
}

// revokeLeastRecentlyUsed ends the sessions unused longest until one more may be opened.
func (h *AccountSessions) revokeLeastRecentlyUsed(limit int, at time.Time) {
	byUse := slices.SortedStableFunc(slices.Values(h.Sessions), func(a, b *Session) int { return a.LastUsedAt.Compare(b.LastUsedAt) })
	for _, s := range byUse[:max(0, len(byUse)-limit+1)] {
		s.Revoke(TooMany, at)
	}
}

// issueTokens returns tokens of the session's current generation.
func (s *Service) issueTokens(ctx context.Context, x *Session) (*Tokens, error) {
	access, expires, err := s.accessTokens.Issue(ctx, x.UserID, x.ID, x.ExpiresAt, s.now())
	if err != nil {
		return nil, err
	}
	x.Current = true
	return &Tokens{x, access, refreshTokenOf(s.refreshSecret, x).String(), expires}, nil
}

// errCredentials is the one error for all that a caller must not be able to tell
// apart.
func errCredentials() *fault.Error {
	return fault.New(fault.CredentialsWrong, "The login or the password is wrong.")
}
