package httpd

import (
	"context"
	"net/http"
	"sync"

	"github.com/backplane-dev/backplane/internal/fault"
)

// acquire waits for a slot to run in and returns what gives it back.
func (s *Server) acquire(ctx context.Context) (release func(), err error) {
	release = func() { <-s.slots }
	select {
	case s.slots <- struct{}{}:
		return release, nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.QueueTime)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		busy := fault.New(fault.Unavailable, fault.ServerBusy, "The server is busy; try again in a moment.")
		busy.RetryAfter = s.cfg.QueueTime
		return nil, busy
	}
}

// inSlot waits for a slot, in which answer makes an answer. The slot is given back
// when the answer begins: it is made by then, and how long its client takes to
// receive it must not keep others waiting. An error means that there was no slot.
func (s *Server) inSlot(ctx context.Context, w http.ResponseWriter, answer func(http.ResponseWriter)) error {
	release, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	release = sync.OnceFunc(release)
	defer release()
	answer(&slotWriter{w, release})
	return nil
}

// slotWriter gives a slot back when the answer begins.
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
