package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Codes of errors that callers may want to tell apart. They are the registry's;
// its schema lists all.
const (
	CodeTokenExpired     = "TOKEN_EXPIRED"      // an access token of a session has expired; API keys get UNAUTHENTICATED
	CodeUnauthenticated  = "UNAUTHENTICATED"    // the token is not good any more: revoked, expired, or never was
	CodeForbidden        = "FORBIDDEN"          // the token may not do this
	CodeServiceNotFound  = "SERVICE_NOT_FOUND"  // the service is not defined
	CodeInstanceNotFound = "INSTANCE_NOT_FOUND" // the instance is not registered, or was removed
	CodeStaleIncarnation = "STALE_INCARNATION"  // another process has claimed the instance's id since
	CodeRateLimited      = "RATE_LIMITED"       // too many calls
	CodeUnavailable      = "UNAVAILABLE"        // the registry is without its database
	codeCursorExpired    = "CURSOR_EXPIRED"
	codeCursorInvalid    = "CURSOR_INVALID" // of a node whose release has other cursors
	codeCursorUnknown    = "CURSOR_UNKNOWN"
	codeServerBusy       = "SERVER_BUSY"
	codeInternal         = "INTERNAL"
	codeTimeout          = "TIMEOUT"
	codeCancelled        = "CANCELLED"
	codeHTTP             = "HTTP " // and the status: of an answer that has no code, as of a proxy
)

// ErrNoInstance says that no instance of the service can be called.
var ErrNoInstance = errors.New("no instance of the service can be called")

// ErrClosed says that Close was called.
var ErrClosed = errors.New("closed")

// Error is what the registry answered instead of what it was asked for.
type Error struct {
	Code    string   // stable, e.g. SERVICE_NOT_FOUND; of an answer without one, HTTP and its status
	Message string   // for people
	Path    []string // to the input at fault; may be empty
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("the registry answered %s: %s", e.Code, e.Message) }

// Code returns the code of an Error, empty for other errors and nil.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// isTemporary reports whether the same call may succeed later or at another node: the registry
// could not be reached, or could not answer. Its other errors are final.
func isTemporary(err error) bool {
	e, refused := errors.AsType[*Error](err)
	return !refused || e.Code == CodeRateLimited || strings.HasPrefix(e.Code, codeHTTP) || retryElsewhere(err)
}

// isRevoked reports whether the credential was revoked or lost the permission.
func isRevoked(err error) bool {
	code := Code(err)
	return code == CodeUnauthenticated || code == CodeTokenExpired || code == CodeForbidden
}

// retryElsewhere reports whether another node may succeed.
func retryElsewhere(err error) bool {
	e, refused := errors.AsType[*Error](err)
	if !refused {
		return true
	}
	return slices.Contains([]string{CodeUnavailable, codeServerBusy, codeInternal, codeTimeout, codeCancelled, codeHTTP + "500", codeHTTP + "502", codeHTTP + "503", codeHTTP + "504"}, e.Code)
}

// contextError returns the cause of the context's end, with the last error if there is one.
func contextError(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, ctx.Err()) {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}
