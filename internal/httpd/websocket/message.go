package websocket

import (
	"bytes"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// message is a message of a client. Its type decides which fields it must have.
type message struct {
	kind    string
	id      string
	payload any // decoded JSON; nil for null and for none
}

// decodeMessage reads a message of either subprotocol. The close code of its reason is
// 4400.
func decodeMessage(text []byte) (m message, reason *connection.CloseReason) {
	v, err := jsoncodec.Decode(text)
	if err != nil {
		return m, invalidMessageError(err)
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return m, invalidMessage("The message must be a JSON object.")
	}
	if m.kind, ok = fields["type"].(string); !ok {
		return m, invalidMessage("The message must have a type, which is text.")
	}
	if id, given := fields["id"]; given && id != nil {
		if m.id, ok = id.(string); !ok {
			return m, invalidMessage("The id of a message must be text.")
		}
	}
	m.payload = fields["payload"]
	return m, nil
}

func invalidMessageError(err error) *connection.CloseReason {
	return invalidMessage(connection.ReasonForError(err).Text)
}

// object returns the payload of a message whose payload is optional.
func (m message) object() (map[string]any, *connection.CloseReason) {
	fields, ok := m.payload.(map[string]any)
	if !ok && m.payload != nil {
		return nil, invalidMessage("The payload of " + m.kind + " must be a JSON object.")
	}
	return fields, nil
}

// request returns the GraphQL request in the payload of the message.
func (m message) request() (req executor.Request, reason *connection.CloseReason) {
	fields, ok := m.payload.(map[string]any)
	if !ok || m.id == "" {
		return req, invalidMessage("A message of the type " + m.kind + " must have an id and a payload, which is a JSON object.")
	}
	req, err := jsoncodec.DecodeRequest(fields)
	if err != nil {
		return req, invalidMessageError(err)
	}
	if _, ok := fields["query"].(string); !ok && req.Extensions["persistedQuery"] == nil {
		return req, invalidMessage("The payload of " + m.kind + " must have a query, which is text.")
	}
	return req, nil
}

// tokenOf returns the token that a payload carries: the value of authorization or
// Authorization, with or without the scheme Bearer before it.
func tokenOf(payload map[string]any) (token string, given bool, reason *connection.CloseReason) {
	v, ok := payload["authorization"]
	if !ok {
		v, ok = payload["Authorization"]
	}
	if !ok || v == nil {
		return "", false, nil
	}
	text, ok := v.(string)
	if !ok {
		return "", false, invalidMessage("The authorization in a payload must be text.")
	}
	if token, ok = jsoncodec.BearerToken(text); !ok {
		token = text
	}
	return token, true, nil
}

// outgoing is a message to a client.
type outgoing struct {
	kind    string
	id      string // empty for none
	payload any    // nil for none
}

func (m outgoing) encodeTo(out *bytes.Buffer) error {
	out.WriteString(`{"type":"`)
	out.WriteString(m.kind) // one of our own constants
	out.WriteByte('"')
	if m.id != "" {
		out.WriteString(`,"id":`)
		if err := jsoncodec.Encode(out, m.id); err != nil {
			return err
		}
	}
	if m.payload != nil {
		out.WriteString(`,"payload":`)
		if err := jsoncodec.Encode(out, m.payload); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}
