// Package security defines security events: the attempts to sign in, the changes of credentials and
// rights, and the refusals that an auditor asks for. It is a leaf without I/O.
//
// Security events are no events of the event log (package event): nothing in the product reacts to them,
// no subscriber sees them, and they have a retention of their own. A client that floods the server with
// refusals must not slow the log. A change records its security event in its own transaction; a refusal
// is an error that states its event (see Refuse), which the transport hands to package securitylog, where
// events are aggregated, stored, exported and removed.
//
// No security event holds what a caller typed: a login may be a password in the wrong field, and a
// refused credential may be valid elsewhere.
package security

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/uid"
)

// EventType names what happened. The names are API.
type EventType string

// The types of changes and successes. Each is stored with the change itself, or it did not happen.
const (
	SignInSucceeded   EventType = "sign_in.succeeded"
	SignUpSucceeded   EventType = "sign_up.succeeded"
	RefreshReused     EventType = "refresh.reused" // a refresh token came back too late: its session ended
	PasswordChanged   EventType = "password.changed"
	PasswordSet       EventType = "password.set" // by an ADMIN or the operator
	SessionRevoked    EventType = "session.revoked"
	APIKeyCreated     EventType = "api_key.created"
	APIKeyRevoked     EventType = "api_key.revoked"
	UserRolesChanged  EventType = "user.roles_changed"
	UserStatusChanged EventType = "user.status_changed"
	UserDeleted       EventType = "user.deleted"
	SigningKeyRotated EventType = "signing_key.rotated"
	SigningKeyRevoked EventType = "signing_key.revoked"
)

// The types of failures and refusals. Repeats are counted, see package securitylog.
const (
	SignInFailed         EventType = "sign_in.failed"
	SignInThrottled      EventType = "sign_in.throttled"
	PasswordChangeFailed EventType = "password.change_failed" // the current password was wrong
	CredentialRefused    EventType = "credential.refused"     // a token, key or ticket that is malformed, unknown, expired or revoked
	PermissionDenied     EventType = "permission.denied"
	RateLimited          EventType = "rate_limited"
	HostRefused          EventType = "host.refused"
	CrossOriginRefused   EventType = "cross_origin.refused"
)

// EventTypes returns every type: changes and successes first.
func EventTypes() []EventType {
	return []EventType{
		SignInSucceeded, SignUpSucceeded, RefreshReused, PasswordChanged, PasswordSet, SessionRevoked, APIKeyCreated, APIKeyRevoked,
		UserRolesChanged, UserStatusChanged, UserDeleted, SigningKeyRotated, SigningKeyRevoked,
		SignInFailed, SignInThrottled, PasswordChangeFailed, CredentialRefused, PermissionDenied, RateLimited, HostRefused, CrossOriginRefused,
	}
}

// IsRefusal reports whether the type is one of failures and refusals.
func (t EventType) IsRefusal() bool {
	return slices.Index(EventTypes(), t) >= slices.Index(EventTypes(), SignInFailed)
}

// SignIns returns the types that tell a user who has signed in to the account, or tried to.
func SignIns() []EventType {
	return []EventType{SignInSucceeded, SignUpSucceeded, SignInFailed, SignInThrottled, RefreshReused}
}

// Event is a security event, or several equal ones within a window of time.
type Event struct {
	ID         string
	Type       EventType
	OccurredAt time.Time   // when it happened, of several the first, by the clock of the node
	LastAt     time.Time   // when the last of several happened
	RecordedAt time.Time   // when it was stored, by the clock of the database; lists are in this order
	Count      int         // how many it stands for
	UserID     uid.User    // the account that it is about; empty if there is none or it is not known
	Actor      string      // id of the user or API key that did it; empty for an anonymous caller and for the system
	SessionID  uid.Session // the session that it is about, else that of the call
	APIKeyID   uid.APIKey  // the API key that it is about, else that of the call
	Address    string      // of the client
	UserAgent  string      // as the client names itself, at most 256 bytes of printable text
	RequestID  string      // of several the first
	Detail     string      // one of a few words for each type, such as the reason; see docs/security.md
}

// New returns an event of the type that happens now, with what ctx tells of the caller and its request.
func New(ctx context.Context, t EventType, detail string, at time.Time) Event {
	caller, client := auth.From(ctx), auth.ClientFrom(ctx)
	e := Event{
		ID: newID(at), Type: t, OccurredAt: at, LastAt: at, Count: 1, Actor: caller.Actor(), SessionID: caller.SessionID(), APIKeyID: caller.APIKeyID(),
		Address: client.Address, UserAgent: printable(client.UserAgent), RequestID: requestlog.RequestID(ctx), Detail: detail,
	}
	if caller != nil {
		e.UserID = caller.UserID
	}
	return e
}

// newID returns an id that sorts by time. Security events are no nodes of the graph.
func newID(at time.Time) string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // documented never to fail
	return uid.Derive("sec", at, random)
}

// maxUserAgent is how many bytes of a user agent are kept.
const maxUserAgent = 256

// printable returns the text without what a terminal or a log would interpret.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' || r >= 0x80 && r <= 0x9f {
			return -1
		}
		return r
	}, s)
	if len(s) > maxUserAgent {
		s = strings.ToValidUTF8(s[:maxUserAgent], "")
	}
	return s
}
