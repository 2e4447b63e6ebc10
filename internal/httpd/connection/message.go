package connection

import (
	"bytes"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// maxID is how many bytes the id of an operation may have: it is kept, and sent
// with each result.
const maxID = 256

// message is what a client sends over a socket. Which fields it must have is
// told by its type.
type message struct {
	kind    string
	id      string
	payload any // decoded JSON; nil for null and for none
}

// decodeMessage reads a message of either subprotocol. Its ending is 4400.
func decodeMessage(text []byte) (m message, why *ending) {
	v, err := jsoncodec.Decode(text)
	if err != nil {
		return m, refusedMessage(err)
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return m, invalid("The message must be a JSON object.")
	}
	if m.kind, ok = fields["type"].(string); !ok {
		return m, invalid("The message must have a type, which is text.")
	}
	if id, given := fields["id"]; given && id != nil {
		if m.id, ok = id.(string); !ok || len(m.id) > maxID {
			return m, invalid("The id of a message must be text of 1 to 256 bytes.")
		}
	}
	m.payload = fields["payload"]
	return m, nil
}

func refusedMessage(err error) *ending {
	e := refused(err)
	return invalid(e.reason)
}

// object returns the payload of a message whose payload is optional.
func (m message) object() (map[string]any, *ending) {
	fields, ok := m.payload.(map[string]any)
	if !ok && m.payload != nil {
		return nil, invalid("The payload of " + m.kind + " must be a JSON object.")
	}
	return fields, nil
}

// request returns the operation that the message asks for.
func (m message) request() (req executor.Request, why *ending) {
	fields, ok := m.payload.(map[string]any)
	if !ok || m.id == "" {
		return req, invalid("A message of the type " + m.kind + " must have an id and a payload, which is a JSON object.")
	}
	req, err := jsoncodec.DecodeRequest(fields)
	if err != nil {
		return req, refusedMessage(err)
	}
	if _, ok := fields["query"].(string); !ok && req.Extensions["persistedQuery"] == nil {
		return req, invalid("The payload of " + m.kind + " must have a query, which is text.")
	}
	return req, nil
}

// bearer returns the token that a payload carries: the value of authorization
// or Authorization, with or without the word Bearer before it.
func bearer(payload map[string]any) (token string, given bool, why *ending) {
	v, ok := payload["authorization"]
	if !ok {
		v, ok = payload["Authorization"]
	}
	if !ok || v == nil {
		return "", false, nil
	}
	text, ok := v.(string)
	if !ok {
		return "", false, invalid("The authorization in a payload must be text.")
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

func (m outgoing) writeTo(out *bytes.Buffer) error {
	out.WriteString(`{"type":"`)
	out.WriteString(m.kind) // one of our own words
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
