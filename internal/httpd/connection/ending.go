package connection

import (
	"context"
	"errors"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/backplane-dev/backplane/internal/fault"
)

// ending is why we close a connection, in the words of each transport.
type ending struct {
	code   websocket.StatusCode
	reason string
	fault  *fault.Error // what the last response of an event stream says; nil if clients shall come again
}

// Error implements error, for context.Cause.
func (e *ending) Error() string { return e.reason }

// The endings that depend on nothing. The codes from 4400 are those of
// graphql-transport-ws; 4403 is one after which its clients try again, with a
// new token.
var (
	endStopping    = &ending{code: websocket.StatusGoingAway, reason: "The server is stopping; connect again."}
	endClosed      = &ending{code: websocket.StatusNormalClosure}
	endIdle        = &ending{code: websocket.StatusNormalClosure, reason: "Idle: no operation and no message."}
	endDead        = &ending{code: websocket.StatusAbnormalClosure, reason: "No sign of life."}
	endGone        = &ending{code: websocket.StatusAbnormalClosure, reason: "The connection was cut."}
	endSlow        = &ending{code: websocket.StatusPolicyViolation, reason: "The message did not arrive in time."}
	endNoText      = &ending{code: websocket.StatusInvalidFramePayloadData, reason: "The message is not valid UTF-8."}
	endBroken      = &ending{code: websocket.StatusProtocolError, reason: "Protocol error"}
	endInternal    = &ending{code: 4500, reason: "Internal server error"}
	endTooEarly    = &ending{code: 4401, reason: "Unauthorized"}
	endProtocol    = &ending{code: 4406, reason: "Subprotocol not acceptable"}
	endNoInit      = &ending{code: 4408, reason: "Connection initialisation timeout"}
	endTwoInits    = &ending{code: 4429, reason: "Too many initialisation requests"}
	endExpired     = unauthenticated("The access token has expired.")
	endRevoked     = unauthenticated("The credential is no longer valid.")
	endOtherUser   = unauthenticated("The new token belongs to another user.")
	endUncheckable = &ending{code: websocket.StatusTryAgainLater, reason: "Credentials cannot be checked right now.",
		fault: fault.New(fault.Unavailable, fault.ServiceUnavailable, "Credentials cannot be checked right now; try again in a moment.")}
)

func unauthenticated(reason string) *ending {
	return &ending{code: 4403, reason: reason, fault: fault.New(fault.Unauthenticated, fault.Unauthorized, "%s", reason)}
}

// endingOf returns why we ended what ctx belongs to, nil if we did not.
func endingOf(ctx context.Context) *ending {
	why, _ := errors.AsType[*ending](context.Cause(ctx))
	return why
}

// refused is the ending of a connection whose caller or place err refuses.
func refused(err error) *ending {
	f := fault.From(err)
	e := &ending{code: 4403, reason: short(f.Message), fault: f}
	switch f.Kind {
	case fault.Unavailable, fault.Exhausted, fault.Timeout:
		e.code = websocket.StatusTryAgainLater
	case fault.Internal:
		e.code = endInternal.code
	default: // the caller's doing
	}
	return e
}

func invalid(message string) *ending { return &ending{code: 4400, reason: short(message)} }

func duplicate(id string) *ending {
	const before, after = "Subscriber for ", " already exists"
	return &ending{code: 4409, reason: before + cut(id, maxReason-len(before)-len(after)) + after}
}

// maxReason is how many bytes of reason fit into a close frame.
const maxReason = 123

func short(s string) string { return cut(s, maxReason) }

// cut returns at most n bytes of s, whole characters only.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
