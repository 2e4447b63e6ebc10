// Package session authenticates callers: it owns sessions with their access and
// refresh tokens, API keys and stream tickets, and turns each into a principal.
//
// A session is opened by a password and lives in one row. Its refresh token is
// computed from that row and a secret, so that the database holds nothing that
// could be used to sign in; each exchange raises the session's generation, and a
// generation that comes back too late revokes the session. Access tokens are
// signed and state the user and the session, never what the caller may do: roles
// are read from the database and cached, at most a second old or up to date with
// the revocation log, as is whether the session is still live. If neither can be
// read, authentication fails closed with UNAVAILABLE.
//
// Each way to authenticate is a verifier. Subpackages own what a session is made
// of: password (argon2id), throttle (limits on guesses), token (JWTs and signing
// keys). Accounts are created by package user; this package reads them, and writes
// their password hashes. The package has more than 20 files, since each kind of credential and each
// use case has its own.
package session

import (
	"crypto/rand"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Session is one sign-in of a user, until it is ended or expires.
type Session struct {
	ID         uid.Session
	UserID     uid.User
	Address    string // IP address it was opened from; may be empty
	UserAgent  string // program it was opened with, as it named itself; may be empty
	Generation int    // of the current refresh token; the first is 1
	Nonce      []byte // 16 random bytes that its refresh tokens depend on
	Version    int    // raised by each change
	CreatedAt  time.Time
	UpdatedAt  time.Time
	LastUsedAt time.Time // when it was opened or its refresh token was last exchanged for the next
	ExpiresAt  time.Time // moves with each refresh, up to a limit
	RevokedAt  *time.Time
	Current    bool // whether it is the caller's own, set on reading; never stored
	events     event.Recorder
}

// newSession returns the first state of a session of the user.
func newSession(user uid.User, from auth.Client, l Lifetimes, at time.Time) *Session {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // documented never to fail
	return &Session{
		ID: uid.NewSession(at), UserID: user, Address: from.Address, UserAgent: from.UserAgent, Generation: 1, Nonce: nonce,
		Version: 1, CreatedAt: at, UpdatedAt: at, LastUsedAt: at, ExpiresAt: at.Add(min(l.Idle, l.Max)),
	}
}

// Live reports whether the session is neither revoked nor expired at the time.
func (s *Session) Live(at time.Time) bool { return s.RevokedAt == nil && at.Before(s.ExpiresAt) }

// Reason is why a session was revoked.
type Reason string

// The reasons.
const (
	SignedOut       Reason = "SIGNED_OUT"
	Revoked         Reason = "REVOKED"          // by its owner from elsewhere, or by an ADMIN
	PasswordChanged Reason = "PASSWORD_CHANGED" // in another session, or by an ADMIN
	TokenReused     Reason = "TOKEN_REUSED"     // a refresh token came back: it may have been stolen
	AccountEnded    Reason = "ACCOUNT_ENDED"    // the user was deactivated
	TooMany         Reason = "TOO_MANY"         // the user opened more sessions than one may have
)

// Revoke ends the session and records session.revoked; on an ended session it
// does nothing.
func (s *Session) Revoke(why Reason, at time.Time) {
	if !s.Live(at) {
		return
	}
	s.RevokedAt = &at
	s.bumpVersion(at)
	s.events.Record(EventSessionRevoked, string(s.ID), s.Version, snapshot{s.UserID, s.CreatedAt, at, why}, at, string(s.UserID))
}

// Lifetimes says how long a session lasts.
type Lifetimes struct {
	Idle time.Duration // without a refresh
	Max  time.Duration // in all
}

// Exchange reports whether a refresh token of the generation is valid for tokens of
// the session's current generation. The current one is, and raises it; the one
// before is for 30 seconds more, since an answer may get lost and two tabs may
// refresh at once. Any other revokes the session: the token has been copied.
func (s *Session) Exchange(generation int, l Lifetimes, at time.Time) bool {
	switch {
	case !s.Live(at):
		return false
	case generation == s.Generation:
		s.Generation++
		s.LastUsedAt, s.ExpiresAt = at, earlierOf(at.Add(l.Idle), s.CreatedAt.Add(l.Max))
		s.bumpVersion(at)
		return true
	case generation == s.Generation-1 && dbclock.Open(s.LastUsedAt, reuseGrace, at):
		return true
	default:
		s.Revoke(TokenReused, at)
		return false
	}
}

// TakeEvents returns the events recorded since the last call.
func (s *Session) TakeEvents() []event.Event { return s.events.Take() }

// NotFound is the error for a session that is absent or hidden: one error, so
// that ids cannot be probed.
func NotFound() *fault.Error {
	return fault.New(CodeSessionNotFound, "There is no such session.").At("id")
}

func earlierOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *Session) bumpVersion(at time.Time) { s.Version, s.UpdatedAt = s.Version+1, at }

// snapshot is the session as its events show it: not from where it was used.
type snapshot struct {
	UserID    uid.User  `json:"userId"`
	CreatedAt time.Time `json:"createdAt"`
	RevokedAt time.Time `json:"revokedAt"`
	Reason    Reason    `doc:"SIGNED_OUT, REVOKED, PASSWORD_CHANGED, TOKEN_REUSED, ACCOUNT_ENDED or TOO_MANY" json:"reason"`
}
