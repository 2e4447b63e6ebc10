package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/klauspost/compress/gzhttp"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// middleware puts what every request passes around next, the first outermost.
func (s *Server) middleware(next http.Handler) (http.Handler, error) {
	compress, err := gzhttp.NewWrapper()
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	return s.identified(s.timed(s.logged(s.recovered(s.secured(s.bounded(s.shared(s.passed(compressed(compress, s.emptied(next)))))))))), nil
}

// compressed compresses answers, but not streams: their events must not wait
// for one another.
func compressed(compress func(http.Handler) http.HandlerFunc, next http.Handler) http.Handler {
	whole := compress(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wantsSocket(r) || wantsEvents(r) {
			next.ServeHTTP(w, r)
			return
		}
		whole(w, r)
	})
}

// identified gives the request an id: the client's if it is harmless.
func (s *Server) identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !requestlog.ValidRequestID(id) {
			id = requestlog.NewRequestID()
		}
		w.Header().Set("X-Request-Id", id)
		ctx := requestlog.WithRequestID(r.Context(), id)
		next.ServeHTTP(w, r.WithContext(s.withClient(ctx, r)))
	})
}

// noteOperation names the operation in the access log.
func noteOperation(ctx context.Context, op *executor.Operation) {
	requestlog.Note(ctx, slog.String("operation", string(op.Kind())), slog.String("name", op.Name()), slog.Int("cost", op.Cost()))
}

// logged writes one record per request. The query string is left out, since it
// may hold documents and variables.
func (s *Server) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, rec := time.Now(), &recorder{ResponseWriter: w}
		ctx, noted := requestlog.WithNotes(r.Context())
		defer func() {
			attrs := append([]slog.Attr{
				slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", rec.Status()),
				slog.Int64("bytes", rec.bytes), slog.Duration("duration", time.Since(start)), slog.String("client", clientAddress(ctx)),
			}, noted()...)
			s.log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
		}()
		next.ServeHTTP(rec, r.WithContext(ctx))
	})
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Status returns the status sent, which is 200 if nothing was.
func (r *recorder) Status() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	if r.status == 0 && (code >= http.StatusOK || code == http.StatusSwitchingProtocols) {
		r.status = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// recovered answers a panic with a fixed sentence and logs it once.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(cause) // net/http's own way to drop a connection
			}
			err := fault.From(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
			if rec, ok := w.(*recorder); ok && rec.status != 0 {
				err.Report(r.Context(), s.log, "path", r.URL.Path)
				panic(http.ErrAbortHandler) // half a response is sent: it must not look whole
			}
			s.problem(w, r, err)
		}()
		next.ServeHTTP(w, r)
	})
}

// bounded refuses requests whose header is too long, in words. What has more than twice as much is
// cut off by net/http before it gets here.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if headerBytes(r) <= s.cfg.HeaderBytes {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Connection", "close")
		s.problem(w, r, problem.New(http.StatusRequestHeaderFieldsTooLarge, fault.New(fault.Invalid, fault.HeaderTooLarge,
			"The request header is larger than %d bytes.", s.cfg.HeaderBytes)))
	})
}

// headerBytes returns about how long the request line and the header were.
func headerBytes(r *http.Request) int {
	const separators = len(": \r\n")
	n := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + separators
		}
	}
	return n
}

// apiPolicy lets a browser that is shown an answer of the API do nothing with it.
const apiPolicy = "default-src 'none'; frame-ancestors 'none'"

func (s *Server) secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", apiPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// preflightAge is how many seconds a browser may remember a preflight's answer.
const preflightAge = "7200"

// shared lets pages of the allowed origins call (CORS). Nobody is known by a
// cookie, so credentials are never allowed.
func (s *Server) shared(next http.Handler) http.Handler {
	if len(s.cfg.AllowedOrigins) == 0 {
		return next
	}
	all := slices.Contains(s.cfg.AllowedOrigins, "*")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, origin := w.Header(), r.Header.Get("Origin")
		h.Add("Vary", "Origin")
		if origin == "" || !all && !slices.Contains(s.cfg.AllowedOrigins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "Allow, Deprecation, ETag, Link, Location, Preference-Applied, Retry-After, Sunset, X-Request-Id")
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
		h.Set("Access-Control-Allow-Headers", "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, X-GraphQL-Event-Stream-Token, X-Request-Id")
		h.Set("Access-Control-Max-Age", preflightAge)
		w.WriteHeader(http.StatusNoContent)
	})
}
