package httpd

import (
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/backplane-dev/backplane/internal/fault"
)

// recoverPanic answers a panic of a handler with INTERNAL and logs it once.
func (s *Server) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause) // how a handler asks net/http to drop the connection
			}
			err := fault.From(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
			if rec, ok := w.(*statusRecorder); ok && rec.status != 0 {
				err.Report(r.Context(), s.log, "path", r.URL.Path)
				panic(http.ErrAbortHandler) // half an answer is sent: it must not look whole
			}
			s.writeError(w, r, formatProblem, err)
		}()
		next.ServeHTTP(w, r)
	})
}
