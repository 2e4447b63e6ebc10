// Package problem writes errors as HTTP answers that are not GraphQL: the status of each kind of
// error, its headers (Allow, Retry-After, WWW-Authenticate), and the problem document (RFC 9457)
// that is the body.
//
// Code and message are the same as over GraphQL. Legacy REST clients read the member error, which
// is the code as a phrase.
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

// Error is an error whose status does not follow from its kind alone.
type Error struct {
	Status     int
	Fault      *fault.Error
	Allow      string      // the methods of the path, of a 405
	Version    int         // the current version of the object, if the error is a version conflict; else 0
	Violations []Violation // every mistake in the request, if there are several or one has a location
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
	return New(http.StatusRequestEntityTooLarge, fault.New(fault.BodyTooLarge, "The request body is larger than %d bytes.", limit))
}

// BodyUnreadable is the error for a request body whose reading failed with err: its sender was
// slower than the limit, or hung up.
func BodyUnreadable(err error, limit time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return New(http.StatusRequestTimeout, fault.New(fault.Timeout, "The request body did not arrive within %s.", limit))
	}
	return fault.New(fault.BadRequest, "The request body could not be read to its end.")
}

// StatusOf returns the HTTP status of an error: its own if it has one, else that of its kind.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return Status(fault.From(err).Kind())
}

// Status returns the HTTP status of a kind of error.
func Status(k fault.Kind) int {
	switch k {
	case fault.KindInvalid:
		return http.StatusBadRequest
	case fault.KindUnauthenticated:
		return http.StatusUnauthorized
	case fault.KindForbidden:
		return http.StatusForbidden
	case fault.KindNotFound:
		return http.StatusNotFound
	case fault.KindConflict:
		return http.StatusConflict
	case fault.KindExhausted:
		return http.StatusTooManyRequests
	case fault.KindUnavailable:
		return http.StatusServiceUnavailable
	case fault.KindTimeout:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// SetHeaders sets the headers that belong to an error, which answers r, and returns its status.
func SetHeaders(h http.Header, r *http.Request, err error) int {
	f := fault.From(err)
	code := StatusOf(err)
	if e, ok := errors.AsType[*Error](err); ok && e.Allow != "" {
		h.Set("Allow", e.Allow)
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	switch {
	case code != http.StatusUnauthorized:
	case hasCredential(r):
		SetChallenge(h, err)
	default: // RFC 6750, 3.1: a request without a credential gets no error code
		h.Set("WWW-Authenticate", challenge)
	}
	return code
}

// challenge asks for a bearer token.
const challenge = `Bearer realm="backplane"`

// hasCredential reports whether a client sent something to authenticate with.
func hasCredential(r *http.Request) bool {
	return r.Header.Get("Authorization") != "" || r.URL.Query().Has("ticket")
}

// SetChallenge sets the header by which a caller learns why its credential was refused (RFC 6750).
// It also belongs to answers to callers who are taken for anonymous for that reason.
func SetChallenge(h http.Header, err error) {
	refused := challenge + `, error="invalid_token"`
	if f := fault.From(err); f.Code == fault.TokenExpired {
		refused += `, error_description="` + f.Message + `"` // a constant without quotes
	}
	h.Set("WWW-Authenticate", refused)
}

// Document is a problem document.
type Document struct {
	Type           string      `json:"type"`
	Title          string      `json:"title"`
	Status         int         `json:"status"`
	Detail         string      `json:"detail"`
	Code           fault.Code  `json:"code"`
	Error          string      `json:"error"`
	CurrentVersion int         `json:"current_version,omitempty"` //nolint:tagliatelle // as legacy REST clients expect
	RequestID      string      `json:"request_id,omitempty"`      //nolint:tagliatelle // as legacy REST clients expect
	Errors         []Violation `json:"errors,omitempty"`
}

// NewDocument returns the document of an error that is answered with the status.
func NewDocument(r *http.Request, status int, err error) Document {
	f := fault.From(err)
	doc := Document{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: f.Message, Code: f.Code, Error: phraseOf(f.Code)}
	if e, ok := errors.AsType[*Error](err); ok {
		doc.CurrentVersion, doc.Errors = e.Version, e.Violations
	}
	if f.Kind() == fault.KindInternal {
		doc.RequestID = requestlog.RequestID(r.Context())
	}
	return doc
}

// phraseOf returns a code as a phrase: USER_NOT_FOUND is "User not found".
func phraseOf(c fault.Code) string {
	s := strings.ToLower(strings.ReplaceAll(string(c), "_", " "))
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// Write logs the error, if it is internal, and answers with its problem document.
func Write(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	fault.From(err).Report(r.Context(), log, "method", r.Method, "path", r.URL.Path)
	h := w.Header()
	status := SetHeaders(h, r, err)
	h.Set("Content-Type", MediaType)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(NewDocument(r, status, err)) // fails only with the connection
}
