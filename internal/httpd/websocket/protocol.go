package websocket

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// subprotocol is what differs between graphql-transport-ws and graphql-ws.
type subprotocol struct {
	name                              string
	legacy                            bool // an init is refused by a message, and acknowledged with a ka
	nextType, errorType, completeType string
	errorPayload                      func(gqlerror.List) any
	handle                            func(*socket, message) *connection.CloseReason
	keepAlive                         func(*socket)
}

// resultPrefix returns what a message with a result of the operation begins with.
func (p *subprotocol) resultPrefix(id string) []byte {
	text, _ := json.Marshal(id) // text always encodes
	return fmt.Appendf(nil, `{"type":%q,"id":%s,"payload":`, p.nextType, text)
}

// transportWS is graphql-transport-ws, which all current clients speak.
var transportWS = subprotocol{
	name: "graphql-transport-ws", nextType: "next", errorType: "error", completeType: "complete",
	errorPayload: func(errs gqlerror.List) any { return errs },
	handle:       (*socket).handleTransportWS,
	keepAlive:    (*socket).sendCursors,
}

// legacyWS is graphql-ws, the subprotocol of the package subscriptions-transport-ws.
var legacyWS = subprotocol{
	name: "graphql-ws", legacy: true, nextType: "data", errorType: "error", completeType: "complete",
	errorPayload: func(errs gqlerror.List) any { return errs[0] },
	handle:       (*socket).handleLegacyWS,
	keepAlive:    func(k *socket) { k.send(nil, outgoing{kind: "ka"}) },
}

func (k *socket) handleTransportWS(m message) *connection.CloseReason {
	switch m.kind {
	case "connection_init":
		return k.initialise(m)
	case "ping":
		return k.handlePing(m)
	case "pong":
		_, reason := m.object()
		return reason
	case "subscribe":
		return k.subscribe(m)
	case "complete":
		if m.id == "" {
			return invalidMessage("A message of the type complete must have an id.")
		}
		k.operations.Stop(m.id)
		return nil
	}
	return invalidMessage("There is no message of this type for a server.")
}

func (k *socket) handleLegacyWS(m message) *connection.CloseReason {
	switch m.kind {
	case "connection_init":
		return k.initialise(m)
	case "start":
		k.operations.Stop(m.id) // a second start replaces the first
		return k.subscribe(m)
	case "stop":
		k.operations.Stop(m.id)
		return nil
	case "connection_terminate":
		return connection.ReasonClosed
	}
	return invalidMessage("There is no message of this type for a server.")
}

// initialise acknowledges the connection, once, for the caller of the payload or else of the
// upgrade.
func (k *socket) initialise(m message) *connection.CloseReason {
	if k.inited {
		return reasonSecondInit
	}
	k.inited = true
	payload, reason := m.object()
	if reason == nil {
		_, reason = k.authenticate(payload)
	}
	if reason != nil {
		if k.subprotocol.legacy {
			k.send(nil, outgoing{kind: "connection_error", payload: map[string]any{"message": reason.Text}})
		}
		return reason
	}
	k.acknowledged.Store(true)
	k.send(nil, outgoing{kind: "connection_ack"})
	if k.subprotocol.legacy {
		k.send(nil, outgoing{kind: "ka"})
	}
	return nil
}

// authenticate makes the token that the payload carries, if any, the credential of the socket.
func (k *socket) authenticate(payload map[string]any) (renewed bool, reason *connection.CloseReason) {
	token, given, reason := tokenOf(payload)
	if !given || reason != nil {
		return false, reason
	}
	caller, err := k.s.connections.Authenticate(k.ctx, token)
	if err != nil {
		return false, connection.ReasonForError(err)
	}
	if reason := k.s.connections.RenewCredential(k.ctx, k, &k.cred, caller); reason != nil {
		return false, reason
	}
	k.timer.Reset(0) // what is due first has changed
	return true, nil
}

// handlePing answers with the payload of the ping. A ping that carries a new token is answered
// with when that expires, and never with the token.
func (k *socket) handlePing(m message) *connection.CloseReason {
	payload, reason := m.object()
	if reason != nil {
		return reason
	}
	renewed, reason := k.authenticate(payload)
	if reason != nil {
		return reason
	}
	answer := outgoing{kind: "pong"}
	switch {
	case renewed:
		answer.payload = map[string]any{"expiresAt": k.expiresAt()}
	case payload != nil:
		answer.payload = payload
	}
	k.send(nil, answer)
	return nil
}

// expiresAt returns when the credential expires as RFC 3339 writes it, nil if that is not known.
func (k *socket) expiresAt() any {
	at := k.cred.ExpiresAt()
	if at.IsZero() {
		return nil
	}
	return at.UTC().Format(time.RFC3339)
}

func (k *socket) subscribe(m message) *connection.CloseReason {
	if !k.acknowledged.Load() {
		return reasonNotAcknowledged
	}
	req, reason := m.request()
	if reason != nil {
		return reason
	}
	if len(m.id) > connection.MaxIDBytes {
		k.refuseOperation(m.id, fault.New(fault.BadRequest, "The id of an operation may have at most %d bytes.", connection.MaxIDBytes))
		return nil
	}
	o, err := k.operations.Start(k.ctx, m.id)
	switch {
	case errors.Is(err, connection.ErrDuplicateID):
		return duplicateID(m.id)
	case err != nil:
		k.refuseOperation(m.id, err)
		return nil
	}
	go k.runOperation(o, req)
	return nil
}

// refuseOperation ends an operation before it starts; the socket and its other operations go on.
func (k *socket) refuseOperation(id string, err error) {
	k.send(nil, outgoing{k.subprotocol.errorType, id, k.subprotocol.errorPayload(executor.NewRefusal(err).Errors)})
}

func (k *socket) runOperation(o *connection.Operation, req executor.Request) {
	defer k.operations.Finish(o)
	defer k.touch() // the idle time counts from the end of the last operation
	k.s.connections.Guard(k.ctx, k, func() {
		op, refusal := k.s.connections.Prepare(o.Context(), req)
		req = executor.Request{} // or a subscription would keep it as long as it lives
		if refusal != nil {
			k.WriteErrors(o, refusal.Errors)
			return
		}
		k.s.connections.Run(o, k, &k.cred, op, k)
	})
}

// sendCursors sends the cursors that quiet subscriptions have reached.
func (k *socket) sendCursors() {
	for _, o := range k.operations.Live() {
		if cursor := o.TakeCursor(); cursor != "" {
			k.send(o, outgoing{kind: "ping", payload: map[string]any{"id": o.ID, "cursor": cursor}})
		}
	}
}
