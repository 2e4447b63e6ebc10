// Package problem owns how an error is shown over HTTP where the answer is no
// GraphQL: the status of each kind of error, the headers that belong to it, and
// the problem document (RFC 9457) that is its body.
//
// Code and message are those that GraphQL shows. Old clients look for the member
// error, which says the code in words.
package problem

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// MediaType is the media type of problem documents.
const MediaType = "application/problem+json"

// Error is an error with a status that its kind alone does not tell.
type Error struct {
	Status     int
	Fault      *fault.Error
	Allow      string      // the methods there are, of a 405
	Version    int         // that the object is at, if the error is that it has changed; else 0
	Violations []Violation // all that is wrong with the request, if that is more than one thing or at a place
}

// Violation is one thing that is wrong with a request, and where.
type Violation struct {
	Code    fault.Code `json:"code"`
	Detail  string     `json:"detail"`
	In      string     `json:"in,omitempty"`      // path, query, header or body
	Pointer string     `json:"pointer,omitempty"` // JSON pointer (RFC 6901) into what In names
}

// Error returns the text of the fault, for logs.
func (e *Error) Error() string { return e.Fault.Error() }

// Unwrap returns the fault.
func (e *Error) Unwrap() error { return e.Fault }

// New returns an error with the status.
func New(status int, f *fault.Error) *Error { return &Error{Status: status, Fault: f} }

// BodyTooLarge is the error for a request body of more than limit bytes.
func BodyTooLarge(limit int64) *Error {
	return New(http.StatusRequestEntityTooLarge, fault.New(fault.Invalid, fault.BodyTooLarge, "The request body is larger than %d bytes.", limit))
}

// BodyUnreadable is the error for a request body whose reading ended with err: a sender
// that was too slow for the limit, or one that left.
func BodyUnreadable(err error, limit time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return New(http.StatusRequestTimeout, fault.New(fault.Timeout, fault.RequestTimeout, "The request body did not arrive within %s.", limit))
	}
	return fault.New(fault.Invalid, fault.BadRequest, "The request body could not be read to its end.")
}

// Status is what each kind of error is in HTTP.
func Status(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.Exhausted:
		return http.StatusTooManyRequests
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Timeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// SetHeaders sets the headers that belong to an error and returns its status.
func SetHeaders(h http.Header, err error) int {
	f := fault.From(err)
	code := Status(f.Kind)
	if e, ok := errors.AsType[*Error](err); ok {
		code = e.Status
		if e.Allow != "" {
			h.Set("Allow", e.Allow)
		}
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="backplane", error="invalid_token"`)
	}
	return code
}

// Document is a problem document.
type Document struct {
	Type           string      `json:"type"`
	Title          string      `json:"title"`
	Status         int         `json:"status"`
	Detail         string      `json:"detail"`
	Code           fault.Code  `json:"code"`
	Error          string      `json:"error"`
	CurrentVersion int         `json:"current_version,omitempty"` //nolint:tagliatelle // as the old world spells
	RequestID      string      `json:"request_id,omitempty"`      //nolint:tagliatelle // as the old world spells
	Errors         []Violation `json:"errors,omitempty"`
}

// NewDocument returns the document of an error that is answered with the status.
func NewDocument(r *http.Request, status int, err error) Document {
	f := fault.From(err)
	doc := Document{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: f.Message, Code: f.Code, Error: words(f.Code)}
	if e, ok := errors.AsType[*Error](err); ok {
		doc.CurrentVersion, doc.Errors = e.Version, e.Violations
	}
	if f.Kind == fault.Internal {
		doc.RequestID = requestlog.RequestID(r.Context())
	}
	return doc
}

// words says a code in words: USER_NOT_FOUND is "User not found".
func words(c fault.Code) string {
	s := strings.ToLower(strings.ReplaceAll(string(c), "_", " "))
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Write reports the error to operators, if it is theirs to know, and answers
// with its document.
func Write(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	fault.From(err).Report(r.Context(), log, "method", r.Method, "path", r.URL.Path)
	h := w.Header()
	status := SetHeaders(h, err)
	h.Set("Content-Type", MediaType)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(NewDocument(r, status, err)) // what fails here is the connection
}
