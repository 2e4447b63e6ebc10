package connection

import (
	"context"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// CloseReason says why we close a connection, in the terms of each protocol.
type CloseReason struct {
	Code  int    // close code of a WebSocket: RFC 6455, or graphql-transport-ws from 4400 on
	Text  string // close reason, at most MaxReasonBytes
	Fault error  // what the last response of an event stream says; nil if clients shall reconnect
}

// Error implements error, for context.Cause.
func (r *CloseReason) Error() string { return r.Text }

// The close codes that this package needs.
const (
	codeNormalClosure = 1000
	codeGoingAway     = 1001
	CodeAbnormal      = 1006 // no close frame may carry it: the connection is cut
	codeTryAgainLater = 1013
	codeForbidden     = 4403 // after which clients of graphql-transport-ws connect again, with a new token
	codeInternal      = 4500
)

// The close reasons that every protocol has.
var (
	ReasonStopping    = &CloseReason{Code: codeGoingAway, Text: "The server is stopping; connect again."}
	ReasonClosed      = &CloseReason{Code: codeNormalClosure}                      // by the client
	ReasonDead        = &CloseReason{Code: CodeAbnormal, Text: "No sign of life."} // no answer to keep-alives, or a stalled write
	ReasonInternal    = &CloseReason{Code: codeInternal, Text: "Internal server error"}
	ReasonInitTimeout = &CloseReason{Code: 4408, Text: "Connection initialisation timeout"}

	reasonExpired     = unauthenticated("The access token has expired.")
	reasonRevoked     = unauthenticated("The credential is no longer valid.")
	reasonOtherUser   = unauthenticated("The new token belongs to another user.")
	reasonUncheckable = &CloseReason{Code: codeTryAgainLater, Text: "Credentials cannot be checked right now.",
		Fault: fault.New(fault.Unavailable, "Credentials cannot be checked right now; try again in a moment.")}
)

func unauthenticated(text string) *CloseReason {
	return &CloseReason{Code: codeForbidden, Text: text, Fault: fault.New(fault.Unauthenticated, "%s", text)}
}

// ReasonFrom returns why we closed the connection that ctx belongs to, nil if we did not.
func ReasonFrom(ctx context.Context) *CloseReason {
	reason, _ := errors.AsType[*CloseReason](context.Cause(ctx))
	return reason
}

// ReasonForError returns the close reason of a connection whose caller or admission err refuses.
func ReasonForError(err error) *CloseReason {
	reason := &CloseReason{Code: codeForbidden, Text: TruncateReason(fault.From(err).Message, MaxReasonBytes), Fault: err}
	switch problem.StatusOf(err) {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusGatewayTimeout:
		reason.Code = codeTryAgainLater
	case http.StatusInternalServerError:
		reason.Code = codeInternal
	default: // the caller's own mistake
	}
	return reason
}

// MaxReasonBytes is how many bytes of a close reason fit into a close frame.
const MaxReasonBytes = 123

// TruncateReason returns at most n bytes of text, whole characters only.
func TruncateReason(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
