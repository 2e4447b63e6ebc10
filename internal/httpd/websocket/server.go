// Package websocket serves GraphQL over WebSockets, by the subprotocols graphql-transport-ws
// and graphql-ws (legacy, of the npm package subscriptions-transport-ws).
//
// It owns the upgrade, the messages of both subprotocols with their close codes, keep-alive
// pings, and the frames of results; control frames and reading are github.com/coder/websocket.
// Admission, credentials, operations and limits are those of package connection. The states
// of a socket, between admission and closing:
//
//	upgraded ── connection_init, valid token ──▶ acknowledged ─┐ subscribe, complete,
//	   │                                              │  ▲─────┘ ping with a new token
//	   │ no init in time (4408), operation before     │ invalid message (4400), second init (4429),
//	   │ the ack (4401), invalid token (4403)         │ live id (4409), credential ended (4403), idle, drain
//	   ▼                                              ▼
//	closing: close frame behind the message being written; nothing follows it
//
// One goroutine reads a socket, one runs for each operation, and a timer does the rest. A
// write waits for a slow client up to the stall time, and no other operation's goroutine
// holds up the reader.
package websocket

import (
	"context"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// Server serves WebSockets. Its method is safe for concurrent use.
type Server struct {
	connections *connection.Manager
	cfg         connection.Config
}

// New returns a Server whose sockets are counted and closed by the manager.
func New(connections *connection.Manager) *Server {
	return &Server{connections: connections, cfg: connections.Config()}
}

// Serve upgrades the request to a WebSocket, or refuses to by an error that the caller must
// answer with. It returns at once: the socket outlives the request. The caller has checked the
// origin, and authenticated the client by the Authorization header, if there is one.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, caller connection.Caller) error {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
	now := time.Now()
	k := &socket{
		s: s, cancel: cancel, operations: connection.NewOperations(s.cfg.Operations), opened: now, nextKeepAlive: now.Add(s.cfg.KeepAlive),
		ready: make(chan struct{}), closed: make(chan struct{}), writing: semaphore.NewWeighted(1),
	}
	k.ctx = auth.WithCurrent(ctx, k.cred.Principal)
	k.cred.Set(caller)
	k.timer = time.AfterFunc(connection.UnsetDelay, k.onTimer)
	if err := s.connections.Admit(ctx, k, caller.Principal); err != nil {
		k.abandon()
		return err
	}
	if !k.upgrade(w, r) {
		k.abandon()
		s.connections.Release(k)
		return nil
	}
	go k.run()
	return nil
}

// upgrade takes the connection over from the request; it reports false if the request was
// answered instead.
func (k *socket) upgrade(w http.ResponseWriter, r *http.Request) bool {
	h := &hijacker{ResponseWriter: w, stallTime: k.s.cfg.StallTime}
	ws, err := websocket.Accept(h, r, &websocket.AcceptOptions{
		Subprotocols: []string{transportWS.name, legacyWS.name}, InsecureSkipVerify: true, OnPingReceived: k.answerPing,
	})
	if err != nil {
		return false
	}
	ws.SetReadLimit(int64(k.s.cfg.MessageBytes))
	k.ws, k.conn = ws, h.conn
	k.touch()
	close(k.ready)
	k.timer.Reset(0) // to find out what is due first
	return true
}

// abandon gives up a socket that was not admitted or not upgraded.
func (k *socket) abandon() {
	k.cancel(nil)
	k.timer.Stop()
	close(k.ready)
}
