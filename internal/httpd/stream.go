package httpd

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/sse"
	"github.com/backplane-dev/backplane/internal/security"
)

// How a request names the single connection that it belongs to.
const (
	tokenHeader    = "X-Graphql-Event-Stream-Token"
	tokenParameter = "token"
)

// ticketParameter is how an event stream by GET presents its ticket.
const ticketParameter = "ticket"

// ticketOf returns the ticket of a request, empty if it has none.
func ticketOf(r *http.Request) string {
	if !strings.Contains(r.URL.RawQuery, ticketParameter+"=") {
		return ""
	}
	return r.URL.Query().Get(ticketParameter)
}

// wantsWebSocket reports whether the request is to become a WebSocket.
func wantsWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// wantsEventStream reports whether the answer is to be an event stream.
func wantsEventStream(r *http.Request) bool {
	if !strings.Contains(r.Header.Get("Accept"), string(mediaEvents)) {
		return false // as most requests, without parsing
	}
	best, err := negotiate(r)
	return err == nil && best == mediaEvents
}

// reservationToken returns the token of the single connection that the request belongs to,
// empty if none.
func reservationToken(r *http.Request) string {
	if token := r.Header.Get(tokenHeader); token != "" {
		return token
	}
	if !strings.Contains(r.URL.RawQuery, tokenParameter+"=") {
		return ""
	}
	return r.URL.Query().Get(tokenParameter)
}

// isStreamRequest reports whether the request belongs to a WebSocket or an event stream.
func isStreamRequest(r *http.Request) bool { return (*Server)(nil).streamHandler(r) != nil }

// streamHandler returns the handler of a request that belongs to a WebSocket or an event
// stream, nil for any other.
func (s *Server) streamHandler(r *http.Request) handlerFunc {
	switch token, ticket := reservationToken(r), ticketOf(r); {
	case ticket != "" && r.Method == http.MethodGet && wantsEventStream(r) && token == "":
		return s.serveTicket
	case ticket != "":
		return refuseTicket
	case wantsWebSocket(r):
		return s.serveWebSocket
	case r.Method == http.MethodPut && r.ContentLength == 0: // a reservation has no body
		return s.serveReservation
	case r.Method == http.MethodDelete:
		return s.serveStop
	case token != "" && r.Method == http.MethodGet && wantsEventStream(r):
		return s.serveReserved
	case token != "":
		return s.serveStart
	case wantsEventStream(r):
		return s.serveEvents
	}
	return nil
}

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) error {
	if !s.allowsWebSocket(r) {
		return security.Refuse(security.CrossOriginRefused, "", fault.New(fault.Forbidden, "Pages of this origin may not open sockets here."))
	}
	caller, err := s.authenticateHeader(r)
	if err != nil {
		return err
	}
	return s.websockets.Serve(w, r, caller)
}

// allowsWebSocket reports whether the origin of the request may open a WebSocket: a program, a
// page of ours, or one of an allowed origin. Browsers send no preflight before they open a
// WebSocket to another site.
func (s *Server) allowsWebSocket(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	origin, err := url.Parse(values[0])
	switch {
	case len(values) > 1 || err != nil:
		return false
	case s.allowsOrigin(values[0]):
		return true
	}
	return origin.Host != "" && strings.EqualFold(origin.Host, r.Host)
}

// serveEvents answers with an event stream of one operation.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authenticateHeader(r)
	if err != nil {
		return err
	}
	req, err := s.readRequest(w, r, caller)
	if err != nil {
		return err
	}
	return s.events.Serve(w, r, caller, req, allowOperation(r))
}

// serveTicket answers with the event stream that a ticket was made for. The URL need not
// repeat the request in the ticket, and must not hold another.
func (s *Server) serveTicket(w http.ResponseWriter, r *http.Request) error {
	if len(r.Header.Values("Authorization")) > 0 {
		return errBadRequest("Send a ticket or the header Authorization, not both.")
	}
	req, err := s.readRequest(w, r, connection.Caller{})
	if err != nil {
		return err
	}
	if s.deps.Tickets == nil {
		return errInvalidTicket()
	}
	ticket, err := s.authenticateTicket(r)
	switch {
	case err != nil:
		return err
	case ticket.Caller.Principal == nil || !req.IsZero() && !req.Same(ticket.Request):
		return errInvalidTicket()
	}
	noteCaller(r.Context(), ticket.Caller.Principal)
	return s.events.Serve(w, r, ticket.Caller, ticket.Request, allowOperation(r))
}

// authenticateTicket waits for a slot, as authenticateToken does.
func (s *Server) authenticateTicket(r *http.Request) (Ticket, error) {
	release, err := s.authentications.acquire(r.Context())
	if err != nil {
		return Ticket{}, err
	}
	defer release()
	return s.deps.Tickets.AuthenticateTicket(r.Context(), ticketOf(r))
}

func errInvalidTicket() error {
	return security.Refuse(security.CredentialRefused, "MISUSED", fault.New(fault.Unauthenticated, "The ticket is not valid for this request; make a new one."))
}

// refuseTicket answers a request that has a ticket and is no event stream by GET.
func refuseTicket(http.ResponseWriter, *http.Request) error {
	return security.Refuse(security.CredentialRefused, "MISUSED", fault.New(fault.Unauthenticated, "A ticket is good for nothing but an event stream by GET."))
}

// readRequest reads the one operation of a request whose answer is streamed. The operation
// takes its own memory once it runs.
func (s *Server) readRequest(w http.ResponseWriter, r *http.Request, caller connection.Caller) (req executor.Request, err error) {
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		return req, fault.New(fault.IdempotencyKeyInvalid, "A request whose answer is streamed has its idempotency key in the input.")
	}
	ctx, grant := s.openMemory(withPrincipal(r.Context(), caller))
	defer grant.Release()
	in, err := s.readRequests(w, r.WithContext(ctx))
	switch {
	case err != nil:
		return req, err
	case in.batch:
		return req, errBadRequest("An event stream is for one operation, not for an array.")
	}
	return in.requests[0], nil
}

// allowOperation notes the operation in the access log and refuses a mutation by GET.
func allowOperation(r *http.Request) sse.Allow {
	return func(op *executor.Operation) error {
		noteOperation(r.Context(), op)
		if op.Kind() == ast.Mutation && r.Method != http.MethodPost {
			return errMutationByGet()
		}
		return nil
	}
}

// serveReservation reserves a single connection, whose stream GET then opens.
func (s *Server) serveReservation(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authenticateHeader(r)
	if err != nil {
		return err
	}
	token, err := s.events.Reserve(r.Context(), caller)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte(token)) // fails only with the connection
	return nil
}

// serveReserved opens the event stream of a single connection.
func (s *Server) serveReserved(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authenticateHeader(r)
	if err != nil {
		return err
	}
	return s.events.ServeReserved(w, r, caller, reservationToken(r))
}

// serveStart starts an operation of a single connection.
func (s *Server) serveStart(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.authenticateHeader(r)
	if err != nil {
		return err
	}
	req, err := s.readRequest(w, r, caller)
	if err != nil {
		return err
	}
	id, _ := req.Extensions["operationId"].(string)
	refusal, err := s.events.Start(reservationToken(r), id, caller, req, allowOperation(r))
	switch {
	case err != nil:
		return err
	case refusal != nil:
		media, err := negotiate(r)
		if err != nil || media == mediaEvents {
			media = mediaJSON
		}
		s.writeJSON(w, r, http.StatusBadRequest, media, errorBody{refusal.Errors})
		return nil
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// serveStop stops an operation of a single connection.
func (s *Server) serveStop(w http.ResponseWriter, r *http.Request) error {
	token, id := reservationToken(r), r.URL.Query().Get("operationId")
	if token == "" || id == "" {
		return errMethodNotAllowed("DELETE ends an operation of a single connection, and needs its token and operationId.", "GET, POST, PUT")
	}
	caller, err := s.authenticateHeader(r)
	if err != nil {
		return err
	}
	if err := s.events.Stop(token, id, caller); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
