package httpd

import (
	"net/http"
	"slices"
)

// middleware is one step that every request passes before its handler.
type middleware struct {
	name string
	wrap func(next http.Handler) http.Handler
}

// middleware returns the steps in the order in which requests pass them, each with the reason
// for its position.
//
// Authentication is no step: handlers authenticate, each in its own way (bearer token, ticket,
// connection_init, trusted network), once they know the format of their errors. Nor are legacy
// REST routes: they are patterns of the mux, behind all steps.
func (s *Server) middleware() ([]middleware, error) {
	gzip, err := newGzip()
	if err != nil {
		return nil, err
	}
	return []middleware{
		{"request id", s.assignRequestID},              // first: logs and answers of all other steps carry it and the client's address
		{"client deadlines", s.setClientDeadlines},     // before anything is read or written
		{"close while stopping", s.closeWhileStopping}, // before the first step that may answer
		{"access log", s.logAccess},                    // outside recovery, so that it records the answer to a panic
		{"recover panic", s.recoverPanic},              // directly inside the access log, whose writer tells whether an answer has begun
		{"security headers", s.setSecurityHeaders},     // before the first step that may answer
		{"max header bytes", s.limitHeaderBytes},       // before any step that reads the header
		{"HTTP version", s.refuseHTTP2},                // before the host, which the preface of HTTP/2 does not have
		{"host", s.checkHost},                          // before all that trusts the network or the origin of a caller
		{"CORS", s.allowOrigins},                       // before the gateway: preflights have no credential
		{"cross-origin", s.refuseCrossOrigin},          // behind CORS, so that allowed origins can read the refusals of the rest
		{"gateway", s.routeGateway},                    // outside gzip, as answers are the services' own, and outside the mux, which would clean their paths
		{"gzip", gzip},                                 // outside all handlers; not for streams, whose events must not wait
		{"drain body", s.drainBody},                    // last: a gateway request keeps its body
	}, nil
}

// wrap puts the middleware around the handler, the first outermost.
func wrap(chain []middleware, next http.Handler) http.Handler {
	for _, m := range slices.Backward(chain) {
		next = m.wrap(next)
	}
	return next
}
