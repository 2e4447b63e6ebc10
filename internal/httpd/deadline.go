package httpd

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// timed bounds how long the client of a request may take: to send the body, from
// the end of the header on, and to receive the answer, from its beginning on.
// Whoever serves the request may set deadlines of its own instead.
func (s *Server) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			s.awaitBody(w)
		}
		next.ServeHTTP(&timedWriter{ResponseWriter: w, limit: s.cfg.WriteTime}, r)
	})
}

// awaitBody gives the client its time to send the body, from now on. A writer
// without deadlines, as in tests, has no slow client either.
func (s *Server) awaitBody(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.BodyTime))
}

// bodyArrived ends the time that awaitBody gave: else the connection would count
// as lost while we work.
func bodyArrived(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// emptied reads and drops the body of a request that has no use for one. Without
// that, net/http would wait for it before it sends the answer.
func (s *Server) emptied(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 && isSafe(r.Method) {
			if err := s.copyBody(io.Discard, w, r); err != nil {
				s.problem(w, r, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// isSafe reports whether requests of the method change nothing. None of ours has
// a body.
func isSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}

// timedWriter sets the deadline of an answer when it begins, unless somebody has
// set another before.
type timedWriter struct {
	http.ResponseWriter
	limit time.Duration
	set   atomic.Bool
}

// WriteHeader implements http.ResponseWriter.
func (t *timedWriter) WriteHeader(code int) {
	t.begin()
	t.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (t *timedWriter) Write(b []byte) (int, error) {
	t.begin()
	return t.ResponseWriter.Write(b)
}

func (t *timedWriter) begin() {
	if !t.set.Swap(true) {
		_ = http.NewResponseController(t.ResponseWriter).SetWriteDeadline(time.Now().Add(t.limit))
	}
}

// SetWriteDeadline is for http.ResponseController.
func (t *timedWriter) SetWriteDeadline(at time.Time) error {
	t.set.Store(true)
	return http.NewResponseController(t.ResponseWriter).SetWriteDeadline(at)
}

// Unwrap lets http.ResponseController find the connection.
func (t *timedWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }
