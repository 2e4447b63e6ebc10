package httpd

import (
	"context"
	"net/http"
	"sync"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/membudget"
)

// acquireSlot waits for a slot to run in, for at most QueueTime, and returns what releases it.
// Requests queue in the order in which they came. Its error is SERVER_BUSY.
func (s *Server) acquireSlot(ctx context.Context) (release func(), err error) {
	release = func() { s.slots.Release(1) }
	if s.slots.TryAcquire(1) {
		return release, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.QueueTime)
	defer cancel()
	if s.slots.Acquire(ctx, 1) != nil {
		busy := fault.New(fault.ServerBusy, "The server is busy; try again in a moment.")
		busy.RetryAfter = s.cfg.QueueTime
		return nil, busy
	}
	return release, nil
}

// inSlot waits for a slot and has answer make the answer in it. The slot is released when the
// answer begins: it is made by then, and the time that a slow client takes to receive it must
// not keep other callers waiting. Its error is SERVER_BUSY or that of answer.
func (s *Server) inSlot(ctx context.Context, w http.ResponseWriter, answer func(http.ResponseWriter) error) error {
	release, err := s.acquireSlot(ctx)
	if err != nil {
		return err
	}
	release = sync.OnceFunc(release)
	defer release()
	return answer(&slotWriter{w, release})
}

// slotWriter releases a slot when the answer begins.
type slotWriter struct {
	http.ResponseWriter
	release func()
}

// WriteHeader implements http.ResponseWriter.
func (s *slotWriter) WriteHeader(code int) {
	s.release()
	s.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (s *slotWriter) Write(b []byte) (int, error) {
	s.release()
	return s.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (s *slotWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// openMemory returns the context of a request, for its caller, with a grant of memory that the
// caller of openMemory releases once the response is written.
func (s *Server) openMemory(ctx context.Context) (context.Context, *membudget.Grant) {
	grant := s.deps.Memory.Open(ctx)
	return membudget.WithGrant(ctx, grant), grant
}
