package httpd

import (
	"net/http"
	"sync/atomic"
	"time"
)

// setClientDeadlines bounds how long a slow client may take: to send the body, from the end of
// the header on, and to read the answer, from its beginning on. A handler may set deadlines of
// its own instead, through http.ResponseController.
func (s *Server) setClientDeadlines(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			s.setBodyDeadline(w)
		}
		next.ServeHTTP(&deadlineWriter{ResponseWriter: w, limit: s.cfg.WriteTime}, r)
	})
}

// setBodyDeadline gives the client BodyTime to send the body, from now on. A writer without
// deadlines, as in tests, has no slow client either.
func (s *Server) setBodyDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.BodyTime))
}

// clearBodyDeadline ends the time that setBodyDeadline gave: else the connection would count
// as lost while the request is being served.
func clearBodyDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// deadlineWriter sets the write deadline of an answer when it begins, unless a handler has set
// another before.
type deadlineWriter struct {
	http.ResponseWriter
	limit time.Duration
	set   atomic.Bool
}

// WriteHeader implements http.ResponseWriter.
func (w *deadlineWriter) WriteHeader(code int) {
	w.setDeadline()
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *deadlineWriter) Write(b []byte) (int, error) {
	w.setDeadline()
	return w.ResponseWriter.Write(b)
}

func (w *deadlineWriter) setDeadline() {
	if !w.set.Swap(true) {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.limit))
	}
}

// SetWriteDeadline is for http.ResponseController.
func (w *deadlineWriter) SetWriteDeadline(at time.Time) error {
	w.set.Store(true)
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(at)
}

// Unwrap lets http.ResponseController find the connection.
func (w *deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
