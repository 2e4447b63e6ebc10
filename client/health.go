package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Check returns an error while something that the instance needs is unhealthy. It must return
// soon after its context is over; until it has returned it is not called again.
type Check func(ctx context.Context) error

// HealthConfig says what makes an instance healthy. The zero value is ready to use.
type HealthConfig struct {
	Checks  map[string]Check // by names that may be shown to any caller that reaches the instance
	Timeout time.Duration    // for all of them together; default 1 s, less than the registry waits
}

// Health answers health checks: 200 while the instance is healthy, 503 while it drains or one of
// its checks fails. The body names them but not their errors, which may be confidential.
// Requests that come while the checks run share their result, so that requests
// never make them run more than once at a time.
type Health struct {
	cfg HealthConfig

	mu       sync.Mutex
	draining bool
	round    *round          // under way; nil if none is
	busy     map[string]bool // checks that have not returned
}

// round is a run of the checks.
type round struct {
	done    chan struct{}
	failing map[string]error // read after done is closed
}

// NewHealth returns a Health that is not draining.
func NewHealth(cfg HealthConfig) (*Health, error) {
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Second)
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("health config: negative Timeout %v", cfg.Timeout)
	}
	return &Health{cfg: cfg, busy: map[string]bool{}}, nil
}

// SetDraining says whether the instance is about to stop. Other balancers than
// the registry see it by the checks alone.
func (h *Health) SetDraining(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = on
}

// ServeHTTP implements http.Handler, for any path and for GET and HEAD.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET and HEAD only", http.StatusMethodNotAllowed)
		return
	}
	answer := struct {
		Status  string   `json:"status"`
		Failing []string `json:"failing,omitempty"`
	}{Status: "healthy"}
	status := http.StatusOK
	failing, draining := h.Look(r.Context())
	switch {
	case len(failing) > 0:
		answer.Status, status = "failing", http.StatusServiceUnavailable
		for name := range failing {
			answer.Failing = append(answer.Failing, name)
		}
		slices.Sort(answer.Failing)
	case draining:
		answer.Status, status = "draining", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the caller may have disconnected
}

// errSlow is why a check fails that takes too long.
var errSlow = errors.New("the check takes too long")

// Look runs the checks, or waits for those that run, and returns which fail and
// why. When ctx is over before them, all count as failing.
func (h *Health) Look(ctx context.Context) (failing map[string]error, draining bool) {
	h.mu.Lock()
	r := h.round
	if r == nil {
		r = &round{done: make(chan struct{}), failing: map[string]error{}}
		h.round = r
		go h.runChecks(context.WithoutCancel(ctx), r) // for all requests that wait for it
	}
	draining = h.draining
	h.mu.Unlock()
	select {
	case <-r.done:
		return r.failing, draining
	case <-ctx.Done():
		failing = map[string]error{}
		for name := range h.cfg.Checks {
			failing[name] = ctx.Err()
		}
		return failing, draining
	}
}

// checkResult is what one check came to.
type checkResult struct {
	name string
	err  error
}

// runChecks runs the checks at the same time. One that ignores its context is not waited for, and counts as failing until it has returned.
func (h *Health) runChecks(ctx context.Context, r *round) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	results, waiting := make(chan checkResult, len(h.cfg.Checks)), map[string]bool{}
	for name, check := range h.cfg.Checks {
		waiting[name] = true
		if h.startCheck(name) {
			go func() {
				err := runCheck(ctx, check)
				h.finishCheck(name)
				results <- checkResult{name, err}
			}()
		}
	}
	for len(waiting) > 0 && ctx.Err() == nil {
		select {
		case got := <-results:
			if delete(waiting, got.name); got.err != nil {
				r.failing[got.name] = got.err
			}
		case <-ctx.Done():
		}
	}
	for name := range waiting {
		r.failing[name] = errSlow
	}
	h.mu.Lock()
	h.round = nil
	h.mu.Unlock()
	close(r.done)
}

func (h *Health) startCheck(name string) (free bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	free = !h.busy[name]
	h.busy[name] = true
	return free
}

func (h *Health) finishCheck(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.busy, name)
}

// runCheck calls a check; one that panics fails.
func runCheck(ctx context.Context, check Check) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the check panicked: %v", p)
		}
	}()
	return check(ctx)
}
