package connection

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/executor"
)

// dialect is what tells one subprotocol from the other.
type dialect struct {
	name                 string // of the subprotocol
	legacy               bool   // an init is refused by a message, and answered with a ka
	next, fail, complete string // types of messages
	errors               func(gqlerror.List) any
	handle               func(*socket, message) *ending
	beat                 func(*socket)
}

// headOf returns what a message with a result of the operation begins with.
func (d *dialect) headOf(id string) []byte {
	text, _ := json.Marshal(id) // text always encodes
	return fmt.Appendf(nil, `{"type":%q,"id":%s,"payload":`, d.next, text)
}

// transportWS is graphql-transport-ws, which all current clients speak.
var transportWS = dialect{
	name: "graphql-transport-ws", next: "next", fail: "error", complete: "complete",
	errors: func(errs gqlerror.List) any { return errs },
	handle: (*socket).handleTransportWS,
	beat:   (*socket).tellProgress,
}

// legacyWS is graphql-ws, the subprotocol of the package subscriptions-transport-ws.
var legacyWS = dialect{
	name: "graphql-ws", legacy: true, next: "data", fail: "error", complete: "complete",
	errors: func(errs gqlerror.List) any { return errs[0] },
	handle: (*socket).handleLegacyWS,
	beat:   func(k *socket) { k.send(nil, outgoing{kind: "ka"}) },
}

func (k *socket) handleTransportWS(m message) *ending {
	switch m.kind {
	case "connection_init":
		return k.initialise(m)
	case "ping":
		return k.ping(m)
	case "pong":
		_, why := m.object()
		return why
	case "subscribe":
		return k.subscribe(m)
	case "complete":
		if m.id == "" {
			return invalid("A message of the type complete must have an id.")
		}
		k.tasks.stop(m.id)
		return nil
	}
	return invalid("There is no message of this type for a server.")
}

func (k *socket) handleLegacyWS(m message) *ending {
	switch m.kind {
	case "connection_init":
		return k.initialise(m)
	case "start":
		k.tasks.stop(m.id) // a second start replaces the first
		return k.subscribe(m)
	case "stop":
		k.tasks.stop(m.id)
		return nil
	case "connection_terminate":
		return endClosed
	}
	return invalid("There is no message of this type for a server.")
}

// initialise acknowledges the connection, once, as the caller of the payload or
// else of the upgrade.
func (k *socket) initialise(m message) *ending {
	if k.inited {
		return endTwoInits
	}
	k.inited = true
	payload, why := m.object()
	if why == nil {
		_, why = k.identify(payload)
	}
	if why != nil {
		if k.dialect.legacy {
			k.send(nil, outgoing{kind: "connection_error", payload: map[string]any{"message": why.reason}})
		}
		return why
	}
	k.acked.Store(true)
	k.send(nil, outgoing{kind: "connection_ack"})
	if k.dialect.legacy {
		k.send(nil, outgoing{kind: "ka"})
	}
	return nil
}

// identify makes the caller whose token the payload carries, if any, the one
// who stands behind the socket.
func (k *socket) identify(payload map[string]any) (renewed bool, why *ending) {
	token, given, why := bearer(payload)
	if !given || why != nil {
		return false, why
	}
	who, err := k.s.deps.Authenticate(k.ctx, token)
	if err != nil {
		return false, refused(err)
	}
	if why := k.s.adopt(k.ctx, k, &k.cred, who); why != nil {
		return false, why
	}
	k.timer.Reset(0) // what is due first has changed
	return true, nil
}

// ping answers with the payload that it got. One that carries a new token is
// answered with when that expires, and never with the token.
func (k *socket) ping(m message) *ending {
	payload, why := m.object()
	if why != nil {
		return why
	}
	renewed, why := k.identify(payload)
	if why != nil {
		return why
	}
	answer := outgoing{kind: "pong"}
	switch {
	case renewed:
		answer.payload = map[string]any{"expiresAt": k.cred.expiry()}
	case payload != nil:
		answer.payload = payload
	}
	k.send(nil, answer)
	return nil
}

func (k *socket) subscribe(m message) *ending {
	if !k.acked.Load() {
		return endTooEarly
	}
	req, why := m.request()
	if why != nil {
		return why
	}
	t, err := k.tasks.begin(k.ctx, m.id)
	switch {
	case errors.Is(err, errDuplicate):
		return duplicate(m.id)
	case err != nil:
		k.send(nil, outgoing{k.dialect.fail, m.id, k.dialect.errors(executor.Refuse(err).Errors)})
		return nil
	}
	go k.operate(t, req)
	return nil
}

func (k *socket) operate(t *task, req executor.Request) {
	defer k.tasks.done(t)
	defer k.touch() // idle is counted from the end of the last operation
	k.s.guarded(k.ctx, k, func() {
		op, refusal := k.s.exec.Prepare(t.ctx, req)
		if refusal != nil {
			k.fail(t, refusal.Errors)
			return
		}
		k.s.perform(t, op, k)
	})
}

// tellProgress tells how far quiet subscriptions have come.
func (k *socket) tellProgress() {
	for _, t := range k.tasks.all() {
		if cursor := t.untold(); cursor != "" {
			k.send(t, outgoing{kind: "ping", payload: map[string]any{"id": t.id, "cursor": cursor}})
		}
	}
}
