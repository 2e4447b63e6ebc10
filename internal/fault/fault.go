// Package fault owns the one error type that callers of the API may see.
//
// An error that carries no *Error is Internal: nobody has said that its text is
// safe to show, so clients get a fixed sentence and the log gets the rest. Each
// transport maps Kind to its own statuses; Code and Message are the same on all.
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

// The kinds. The zero value is Internal, so that forgetting to classify is safe.
const (
	Internal        Kind = iota // our mistake; nothing the caller can do
	Invalid                     // change the input
	Unauthenticated             // sign in
	Forbidden                   // ask somebody with more rights
	NotFound                    // it does not exist, or is hidden from the caller
	Conflict                    // the state has changed: read again, then decide
	Exhausted                   // slow down; RetryAfter may say how long
	Unavailable                 // something we need is down; try again later
	Timeout                     // it took too long; ask for less or try again
)

// Kinds returns every kind.
func Kinds() []Kind {
	return []Kind{Internal, Invalid, Unauthenticated, Forbidden, NotFound, Conflict, Exhausted, Unavailable, Timeout}
}

// Mendable reports whether the caller can repair its call by what it sends:
// such an error is a userError of a GraphQL mutation.
func (k Kind) Mendable() bool { return k == Invalid || k == NotFound || k == Conflict }

// Error is a failure meant for the caller.
type Error struct {
	Kind       Kind
	Code       Code          // stable identifier, e.g. ORDER_NOT_CANCELLABLE
	Message    string        // one sentence, safe for an end user
	Path       []string      // to the input field at fault, or empty
	RetryAfter time.Duration // how long to wait before the next try; 0 if unknown
	Current    any           // on VERSION_CONFLICT the object as it is now, if the caller may see it
	Err        error         // cause; logged, never shown
}

// New returns an error of the kind with a code and a message for the end user.
func New(kind Kind, code Code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// At returns a copy of the error that points to an input field.
func (e *Error) At(path ...string) *Error {
	c := *e
	c.Path = path
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
		return New(Timeout, RequestTimeout, "The request took too long and was stopped.").Because(err)
	case errors.Is(err, context.Canceled):
		return New(Timeout, RequestCancelled, "The request was cancelled.").Because(err)
	}
	return New(Internal, InternalError, "Something went wrong on our side.").Because(err)
}

// All returns every *Error that errors.Join has put side by side in err, in
// their order, or the classification of err if it holds none.
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

// Report logs what an operator must hear of: an Internal error, and the cause of
// an Unavailable one. Anything else is the caller's news.
func (e *Error) Report(ctx context.Context, log *slog.Logger, attrs ...any) {
	switch {
	case e.Kind == Internal:
		log.ErrorContext(ctx, "internal error", append(attrs, "error", e.Err)...)
	case e.Kind == Unavailable && e.Err != nil:
		log.WarnContext(ctx, "something is unavailable", append(attrs, "error", e.Err)...)
	}
}
