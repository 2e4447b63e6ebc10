package websocket

import (
	"errors"
	"io"
	"net"

	"github.com/coder/websocket"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// The close reasons that only WebSockets have. Codes from 4400 on are those of
// graphql-transport-ws.
var (
	reasonConnectionLost  = &connection.CloseReason{Code: connection.CodeAbnormal, Text: "The connection was cut."}
	reasonIdle            = &connection.CloseReason{Code: int(websocket.StatusNormalClosure), Text: "Idle: no operation and no message."}
	reasonProtocolError   = &connection.CloseReason{Code: int(websocket.StatusProtocolError), Text: "Protocol error"}
	reasonInvalidUTF8     = &connection.CloseReason{Code: int(websocket.StatusInvalidFramePayloadData), Text: "The message is not valid UTF-8."}
	reasonMessageTimeout  = &connection.CloseReason{Code: int(websocket.StatusPolicyViolation), Text: "The message did not arrive in time."}
	reasonMessageTooBig   = &connection.CloseReason{Code: int(websocket.StatusMessageTooBig), Text: "The message is too long."}
	reasonNotAcknowledged = &connection.CloseReason{Code: 4401, Text: "Unauthorized"}
	reasonSubprotocol     = &connection.CloseReason{Code: 4406, Text: "Subprotocol not acceptable"}
	reasonSecondInit      = &connection.CloseReason{Code: 4429, Text: "Too many initialisation requests"}
)

// invalidMessage is the close reason for a message that the subprotocol does not know.
func invalidMessage(text string) *connection.CloseReason {
	return &connection.CloseReason{Code: 4400, Text: connection.TruncateReason(text, connection.MaxReasonBytes)}
}

// duplicateID is the close reason for an operation whose id is that of a live one.
func duplicateID(id string) *connection.CloseReason {
	const before, after = "Subscriber for ", " already exists"
	return &connection.CloseReason{Code: 4409, Text: before + connection.TruncateReason(id, connection.MaxReasonBytes-len(before)-len(after)) + after}
}

// reasonForReadError is the close reason of a socket that cannot be read. If the client did
// not close it and the connection is not cut, the client broke the WebSocket protocol.
func reasonForReadError(err error) *connection.CloseReason {
	_, cut := errors.AsType[net.Error](err)
	switch {
	case cut || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe):
		return reasonConnectionLost
	case websocket.CloseStatus(err) != -1:
		return connection.ReasonClosed
	case errors.Is(err, websocket.ErrMessageTooBig):
		return reasonMessageTooBig
	}
	return reasonProtocolError
}
