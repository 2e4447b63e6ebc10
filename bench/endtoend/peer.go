package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// The variables that make this program what the product is compared with: the address that it listens
// on, and the database of the hand-written handlers; without it, static ones.
const (
	peerEnv         = "BENCH_PEER_LISTEN"
	peerDatabaseEnv = "BENCH_PEER_DATABASE"
)

// peerConns is the number of connections to the database that the product takes for requests by default.
const peerConns = 11

func servePeer() error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	if url := os.Getenv(peerDatabaseEnv); url != "" {
		cfg, err := pgxpool.ParseConfig(url)
		if err != nil {
			return err
		}
		cfg.MaxConns = peerConns
		pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
		if err != nil {
			return err
		}
		if _, err := pool.Exec(context.Background(), outbox); err != nil {
			return err
		}
		h := &handwritten{pool}
		h.register(mux)
	} else {
		mux.Handle("/", &static{responses: make(map[string]response)})
	}
	server := &http.Server{Addr: os.Getenv(peerEnv), Handler: mux, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// response is what a static handler answers.
type response struct {
	status int
	body   []byte
}

// static answers each path with what was put there.
type static struct {
	mu        sync.RWMutex
	responses map[string]response
}

// ServeHTTP implements http.Handler.
func (s *static) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		s.put(w, r)
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	s.mu.RLock()
	found, ok := s.responses[r.URL.Path]
	s.mu.RUnlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	writeJSON(w, found.status, found.body)
}

func (s *static) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	status, err := strconv.Atoi(r.URL.Query().Get("status"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responses[r.URL.Path] = response{status, body}
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client notices
}
