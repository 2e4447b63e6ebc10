// Package fault owns the one error type that callers of the API may see, and the
// closed set of error codes.
//
// A code is declared once, here or by a domain, see Declare: its kind, which says what
// the caller can do, and its sentence in the schema. The kind of an error follows from
// its code, and each transport maps the kind to its own statuses; code and message
// are the same on all.
//
// An error that carries no *Error is Internal: its text may hold secrets, so clients
// get a fixed sentence and the log gets the rest. Most of the exported names are the codes.
package fault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Kind says what the caller can do about an error.
type Kind int

// The kinds. The zero value is KindInternal, so that a code without a meaning is safe.
const (
	KindInternal        Kind = iota // a fault of the server; nothing the caller can do
	KindInvalid                     // change the input
	KindUnauthenticated             // sign in
	KindForbidden                   // ask for more rights
	KindNotFound                    // the object does not exist, or is hidden from the caller
	KindConflict                    // the state does not allow it: read it, change it or give something up, then try again
	KindExhausted                   // slow down; RetryAfter may say how long
	KindUnavailable                 // a dependency is down or the server is overloaded; try again later
	KindTimeout                     // it took too long; ask for less or try again
)

// Kinds returns every kind.
func Kinds() []Kind {
	return []Kind{
		KindInternal, KindInvalid, KindUnauthenticated, KindForbidden, KindNotFound, KindConflict, KindExhausted, KindUnavailable, KindTimeout,
	}
}

// Mendable reports whether the caller can repair its call by what it sends:
// such an error is a userError of a GraphQL mutation.
func (k Kind) Mendable() bool { return k == KindInvalid || k == KindNotFound || k == KindConflict }

// Error is a failure meant for the caller.
type Error struct {
	Code       Code          // stable identifier, e.g. ORDER_NOT_CANCELLABLE
	Message    string        // one sentence, safe for an end user
	Path       []string      // to the input field at fault, or empty
	RetryAfter time.Duration // how long to wait before the next try; 0 if unknown
	Current    any           // on VERSION_CONFLICT the object as it is now, if the caller may see it
	Err        error         // cause; logged, never shown
}

// New returns an error with a code and a message for the end user.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Kind returns the kind of the error's code.
func (e *Error) Kind() Kind { return e.Code.Kind() }

// At returns a copy of the error that points to an input field.
func (e *Error) At(path ...string) *Error {
	c := *e
	c.Path = path
	return &c
}

// After returns a copy of the error that asks the client to wait before it tries again.
func (e *Error) After(wait time.Duration) *Error {
	c := *e
	c.RetryAfter = wait
	return &c
}

// Because returns a copy of the error with its cause, which is logged only.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Error returns the code, the message and the cause: text for logs.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s (%v)", e.Code, e.Message, e.Err)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether err or anything it wraps carries the code.
func Is(err error, code Code) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

// From finds the *Error in the tree of a non-nil err, or classifies err if
// there is none. Anything unknown is Internal.
func From(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return New(Timeout, "The request took too long and was stopped.").Because(err)
	case errors.Is(err, context.Canceled):
		return New(Cancelled, "The request was cancelled.").Because(err)
	}
	return New(Internal, "Something went wrong on our side.").Because(err)
}

// All returns every *Error that errors.Join has joined in err, in their order, or
// the classification of err if it holds none.
func All(err error) []*Error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, e := range joined.Unwrap() {
			all = append(all, All(e)...)
		}
		return slices.Clip(all)
	}
	if _, ok := err.(*Error); !ok { //nolint:errorlint // this node of the tree, not what it wraps
		if inner := errors.Unwrap(err); inner != nil {
			if _, ok := errors.AsType[*Error](inner); ok {
				return All(inner)
			}
		}
	}
	return []*Error{From(err)}
}

// Report logs the errors that concern an operator: an Internal error, and the cause
// of an Unavailable one. Any other error concerns only its caller.
func (e *Error) Report(ctx context.Context, log *slog.Logger, attrs ...any) {
	switch {
	case e.Kind() == KindInternal:
		log.ErrorContext(ctx, "internal error", append(attrs, "error", e.Err)...)
	case e.Kind() == KindUnavailable && e.Err != nil:
		log.WarnContext(ctx, "dependency unavailable", append(attrs, "error", e.Err)...)
	}
}
