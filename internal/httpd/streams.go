package httpd

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// How a request names the single connection that it belongs to.
const (
	tokenHeader    = "X-Graphql-Event-Stream-Token"
	tokenParameter = "token"
)

// ticketParameter is how an event stream by GET shows its ticket.
const ticketParameter = "ticket"

// ticketOf returns the ticket that a request shows, empty if none.
func ticketOf(r *http.Request) string {
	if !strings.Contains(r.URL.RawQuery, ticketParameter+"=") {
		return ""
	}
	return r.URL.Query().Get(ticketParameter)
}

// wantsSocket reports whether the request is to become a WebSocket.
func wantsSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// wantsEvents reports whether the answer is to be an event stream.
func wantsEvents(r *http.Request) bool {
	if !strings.Contains(r.Header.Get("Accept"), string(mediaEvents)) {
		return false // as most requests, without a closer look
	}
	best, err := negotiate(r)
	return err == nil && best == mediaEvents
}

// reservationToken returns the token of the single connection that the request
// belongs to, empty if none.
func reservationToken(r *http.Request) string {
	if token := r.Header.Get(tokenHeader); token != "" {
		return token
	}
	if !strings.Contains(r.URL.RawQuery, tokenParameter+"=") {
		return ""
	}
	return r.URL.Query().Get(tokenParameter)
}

// serveStream serves a request that belongs to a socket or an event stream; it
// reports false if this one does not.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request) bool {
	var serve func(http.ResponseWriter, *http.Request) error
	switch token, ticket := reservationToken(r), ticketOf(r); {
	case ticket != "" && r.Method == http.MethodGet && wantsEvents(r) && token == "":
		serve = s.serveTicket
	case ticket != "":
		serve = refuseTicket
	case wantsSocket(r):
		serve = s.serveSocket
	case r.Method == http.MethodPut && r.ContentLength == 0: // a reservation asks for nothing
		serve = s.serveReservation
	case r.Method == http.MethodDelete:
		serve = s.serveStop
	case token != "" && r.Method == http.MethodGet && wantsEvents(r):
		serve = s.serveReserved
	case token != "":
		serve = s.serveOperation
	case wantsEvents(r):
		serve = s.serveEvents
	default:
		return false
	}
	if err := serve(w, r); err != nil {
		s.refuse(w, r, mediaJSON, err)
	}
	return true
}

func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) error {
	if !s.knownOrigin(r) {
		return fault.New(fault.Forbidden, fault.AccessDenied, "Pages of this origin may not open sockets here.")
	}
	who, err := s.caller(r)
	if err != nil {
		return err
	}
	return s.streams.ServeSocket(w, r, who)
}

// knownOrigin reports whether a socket may be opened from where the request
// comes from: a program, a page of ours, or one of an origin that is allowed.
// Browsers ask nobody before they open a socket to another site.
func (s *Server) knownOrigin(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true
	}
	origin, err := url.Parse(values[0])
	switch {
	case len(values) > 1 || err != nil:
		return false
	case slices.Contains(s.cfg.AllowedOrigins, "*") || slices.Contains(s.cfg.AllowedOrigins, values[0]):
		return true
	}
	return origin.Host != "" && strings.EqualFold(origin.Host, r.Host)
}

// serveEvents answers with an event stream of one operation.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) error {
	who, err := s.caller(r)
	if err != nil {
		return err
	}
	req, err := s.readOne(w, r)
	if err != nil {
		return err
	}
	return s.streams.ServeEvents(w, r, who, req, allowed(r))
}

// serveTicket answers with the event stream that a ticket was made for. The URL
// need not repeat what the ticket says, and must not say anything else.
func (s *Server) serveTicket(w http.ResponseWriter, r *http.Request) error {
	if len(r.Header.Values("Authorization")) > 0 {
		return errBad("Send a ticket or the header Authorization, not both.")
	}
	req, err := s.readOne(w, r)
	if err != nil {
		return err
	}
	if s.deps.Tickets == nil {
		return errTicket()
	}
	ticket, err := s.deps.Tickets.AuthenticateTicket(r.Context(), ticketOf(r))
	switch {
	case err != nil:
		return err
	case ticket.Caller.Principal == nil || !req.IsZero() && !req.Same(ticket.Request):
		return errTicket()
	}
	return s.streams.ServeEvents(w, r, ticket.Caller, ticket.Request, allowed(r))
}

func errTicket() error {
	return fault.New(fault.Unauthenticated, fault.Unauthorized, "The ticket is not valid for this request; make a new one.")
}

// refuseTicket answers a request that shows a ticket and is no event stream by GET.
func refuseTicket(http.ResponseWriter, *http.Request) error {
	return fault.New(fault.Unauthenticated, fault.Unauthorized, "A ticket is good for nothing but an event stream by GET.")
}

// readOne reads the one operation of a request whose answer is streamed.
func (s *Server) readOne(w http.ResponseWriter, r *http.Request) (req executor.Request, err error) {
	if len(r.Header.Values("Idempotency-Key")) > 0 {
		return req, fault.New(fault.Invalid, fault.IdempotencyKeyInvalid, "A request whose answer is streamed has its idempotency key in the input.")
	}
	in, err := s.read(w, r)
	switch {
	case err != nil:
		return req, err
	case in.batch:
		return req, errBad("An event stream is for one operation, not for an array.")
	}
	return in.requests[0], nil
}

// allowed notes the operation in the access log and refuses one that would
// change something by GET.
func allowed(r *http.Request) connection.Allow {
	return func(op *executor.Operation) error {
		noteOperation(r.Context(), op)
		if op.Kind() == ast.Mutation && r.Method != http.MethodPost {
			return errMutationByGet()
		}
		return nil
	}
}

// serveReservation makes a single connection, which GET then opens.
func (s *Server) serveReservation(w http.ResponseWriter, r *http.Request) error {
	who, err := s.caller(r)
	if err != nil {
		return err
	}
	token, err := s.streams.Reserve(r.Context(), who)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte(token)) // what fails here is the connection
	return nil
}

// serveReserved opens the event stream of a single connection.
func (s *Server) serveReserved(w http.ResponseWriter, r *http.Request) error {
	who, err := s.caller(r)
	if err != nil {
		return err
	}
	return s.streams.ServeReserved(w, r, who, reservationToken(r))
}

// serveOperation begins an operation of a single connection.
func (s *Server) serveOperation(w http.ResponseWriter, r *http.Request) error {
	who, err := s.caller(r)
	if err != nil {
		return err
	}
	req, err := s.readOne(w, r)
	if err != nil {
		return err
	}
	id, _ := req.Extensions["operationId"].(string)
	refusal, err := s.streams.Operate(reservationToken(r), id, who, req, allowed(r))
	switch {
	case err != nil:
		return err
	case refusal != nil:
		media, err := negotiate(r)
		if err != nil || media == mediaEvents {
			media = mediaJSON
		}
		s.write(w, r, http.StatusBadRequest, media, body{Errors: refusal.Errors})
		return nil
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// serveStop ends an operation of a single connection.
func (s *Server) serveStop(w http.ResponseWriter, r *http.Request) error {
	token, id := reservationToken(r), r.URL.Query().Get("operationId")
	if token == "" || id == "" {
		return errMethod("DELETE ends an operation of a single connection, and needs its token and operationId.", "GET, POST, PUT")
	}
	who, err := s.caller(r)
	if err != nil {
		return err
	}
	if err := s.streams.Stop(token, id, who); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
