package model

import (
	"time"

	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/uid"
)

// SignInAttempt is a security event as the user sees it whose account it is about.
type SignInAttempt struct {
	Outcome   SignInOutcome
	At        time.Time
	LastAt    time.Time
	Count     int
	Address   string
	UserAgent string
	Session   uid.Session
}

// SignInOutcome is how a sign-in ended.
type SignInOutcome string

// signInOutcomes are the outcomes of the types of security.SignIns.
var signInOutcomes = map[security.EventType]SignInOutcome{
	security.SignInSucceeded: "SIGNED_IN",
	security.SignUpSucceeded: "SIGNED_UP",
	security.SignInFailed:    "FAILED",
	security.SignInThrottled: "THROTTLED",
	security.RefreshReused:   "REFRESH_TOKEN_REUSED",
}

// NewSignInAttempt returns the attempt that a security event is about.
func NewSignInAttempt(e *security.Event) *SignInAttempt {
	return &SignInAttempt{signInOutcomes[e.Type], e.OccurredAt, e.LastAt, e.Count, e.Address, e.UserAgent, e.SessionID}
}
