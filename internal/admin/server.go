// Package admin serves the admin listener for operators: metrics in the Prometheus
// text format, pprof profiles of the process, liveness and readiness.
//
// It has an address of its own, by default on the loopback interface, and needs no
// authentication, although metrics and profiles reveal what the process does: the
// operator must keep the address private. The parts count; package app registers
// their metrics here.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/connlimit"
	"github.com/backplane-dev/backplane/internal/hostcheck"
	"github.com/backplane-dev/backplane/internal/security"
)

// Server serves metrics at /metrics, profiles at /debug/pprof/, and /healthz and
// /readyz.
type Server struct {
	set     *metrics.Set
	http    *http.Server
	ready   func(context.Context) error
	onError func(context.Context, error)
	log     *slog.Logger
}

// Time limits. There is none on responses, as a profile takes as long as its
// request asks for.
const (
	headerTime = 5 * time.Second
	idleTime   = time.Minute
	readyTime  = 2 * time.Second
	stopTime   = time.Second
)

// Bounds of open connections: in all, and from one address.
const (
	maxConnections        = 256
	maxAddressConnections = 64
)

// New returns a Server that serves once Run is called, under the names of hosts. ready returns
// an error while the node cannot serve requests. Pages of other origins are refused: who reads
// metrics and profiles in a browser must not hand them to a page. onError is called with each refusal.
func New(hosts hostcheck.Hosts, ready func(context.Context) error, onError func(context.Context, error), log *slog.Logger) *Server {
	s := &Server{set: metrics.NewSet(), ready: ready, onError: onError, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol) // go tool pprof posts to it
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(s.refuse(security.CrossOriginRefused, http.StatusForbidden, "pages of other origins may not call this server\n"))
	guarded := hosts.Middleware(origins.Handler(mux), s.refuse(security.HostRefused, http.StatusMisdirectedRequest, "this server has no such host name\n"))
	s.http = &http.Server{Handler: guarded, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, ConnState: connlimit.New(maxConnections, maxAddressConnections, nil).ConnState, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return s
}

// listener is the detail of the security events of this listener.
const listener = "ADMIN_LISTENER"

// refuse returns the handler of requests that are refused before they are served.
func (s *Server) refuse(as security.EventType, status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		client := auth.Client{UserAgent: r.UserAgent()}
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			client.Address = peer.Addr().Unmap().WithZone("").String()
		}
		s.onError(auth.WithClient(r.Context(), client), security.Refuse(as, listener, errors.New(text)))
		writeText(w, status, text)
	}
}

// Register adds a metric whose value is read at each scrape. The name may have
// labels: a_b_total{c="d"}; that of a counter ends in _total. A name that is
// registered twice panics.
func (s *Server) Register(name string, value func() float64) { s.set.NewGauge(name, value) }

// Run serves on the listener, which it closes, until ctx is cancelled.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if s.http.Shutdown(late) != nil {
			_ = s.http.Close() // a profile is being written; the process ends all the same
		}
	})
	defer stop()
	if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	s.set.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTime)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		s.log.WarnContext(ctx, "not ready", "error", err)
		writeText(w, http.StatusServiceUnavailable, "not ready\n")
		return
	}
	writeText(w, http.StatusOK, "ready\n")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // fails only if the connection does
}
