// Package admin owns what operators look at: metrics as Prometheus reads them,
// profiles of the process, and health.
//
// It listens on an address of its own, by default one that only this machine
// reaches, and asks nobody who is calling: metrics and profiles tell what the
// process does. Whoever has something to measure registers it; the counting
// itself is theirs.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Server serves metrics at /metrics, profiles at /debug/pprof/, and /healthz and
// /readyz.
type Server struct {
	set   *metrics.Set
	http  *http.Server
	ready func(context.Context) error
	log   *slog.Logger
}

// How long things may take. A profile is written for as long as it is asked for.
const (
	headerTime = 5 * time.Second
	idleTime   = time.Minute
	readyTime  = 2 * time.Second
	stopTime   = time.Second
)

// New returns a Server that answers once Run is called. ready says whether the
// node may be sent requests.
func New(ready func(context.Context) error, log *slog.Logger) *Server {
	s := &Server{set: metrics.NewSet(), ready: ready, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol) // go tool pprof posts to it
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return s
}

// Register adds a metric, whose value is asked for with each scrape. The name is
// that of Prometheus, perhaps with labels: a_b_total{c="d"}. What only grows ends
// in _total. A name that is registered twice panics.
func (s *Server) Register(name string, value func() float64) { s.set.NewGauge(name, value) }

// Run serves on the listener, which it closes, until ctx is cancelled.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if s.http.Shutdown(late) != nil {
			_ = s.http.Close() // somebody is taking a profile; the process ends all the same
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
		plain(w, http.StatusServiceUnavailable, "not ready\n")
		return
	}
	plain(w, http.StatusOK, "ready\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // what fails here is the connection
}
