package security

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Refusal is an error with the security event that it stands for. Callers of the API see Err alone.
type Refusal struct {
	Type      EventType // empty if the event is recorded already
	Detail    string
	UserID    uid.User    // as in Event; empty for what the request says
	SessionID uid.Session // likewise
	APIKeyID  uid.APIKey  // likewise
	Err       error
}

// Error implements error.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the error for the caller.
func (r *Refusal) Unwrap() error { return r.Err }

// Refuse returns err as the refusal of the type.
func Refuse(t EventType, detail string, err error) error {
	return &Refusal{Type: t, Detail: detail, Err: err}
}

// Recorded returns err, which stands for an event that is recorded already.
func Recorded(err error) error { return &Refusal{Err: err} }

// EventOf returns the event that an error stands for which a caller is answered with; ok is false for an
// error that no auditor asks for. It is the one place that classifies errors: by the refusal in it, else
// by its code.
func EventOf(ctx context.Context, err error, at time.Time) (e Event, ok bool) {
	if r, ok := errors.AsType[*Refusal](err); ok {
		if r.Type == "" {
			return Event{}, false
		}
		e = New(ctx, r.Type, r.Detail, at)
		if r.UserID != "" {
			e.UserID = r.UserID
		}
		if r.SessionID != "" {
			e.SessionID = r.SessionID
		}
		if r.APIKeyID != "" {
			e.APIKeyID = r.APIKeyID
		}
		return e, true
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return Event{}, false
	}
	if f.Code == fault.Forbidden || f.Kind() == fault.KindUnauthenticated {
		return New(ctx, PermissionDenied, string(f.Code), at), true
	}
	if f.Code == fault.RateLimited {
		return New(ctx, RateLimited, "", at), true
	}
	return Event{}, false
}
