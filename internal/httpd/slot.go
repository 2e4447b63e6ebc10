package httpd

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/fairshare"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/membudget"
)

// slots bound how many callers do one kind of work at a time. The others queue, in the order in which
// they came. A queue that has not been empty for the wait is a standing one, which only adds to the
// latency of all: its callers wait a tenth of the wait, so that the work that is done is work
// for which a caller still waits (CoDel). One caller holds at most its share of the slots, and waits for it outside of the queue.
type slots struct {
	permits *semaphore.Weighted
	shares  *fairshare.Shares
	share   int // of one caller; 0: all slots
	wait    time.Duration

	mu      sync.Mutex
	waiting int
	since   time.Time // when the queue was last empty
}

const (
	standingPart = 10 // divides the wait in a standing queue
	callerPart   = 4  // divides the slots for operations: what one caller may hold
	shareWaits   = 5  // multiplies the wait for the caller's own share, which keeps no other caller waiting
)

func newSlots(n, share int, wait time.Duration) *slots {
	return &slots{permits: semaphore.NewWeighted(int64(n)), shares: fairshare.New(), share: share, wait: wait}
}

// acquire waits for a slot and returns what releases it. Its error is RATE_LIMITED if the caller holds its share, SERVER_BUSY
// if all callers hold all slots, or that of ctx once the client has left.
func (s *slots) acquire(ctx context.Context) (release func(), err error) {
	hold, err := s.acquireShare(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.acquireSlot(ctx); err != nil {
		hold.Release()
		return nil, err
	}
	return func() { s.permits.Release(1); hold.Release() }, nil
}

func (s *slots) acquireShare(ctx context.Context) (hold fairshare.Hold, err error) {
	if s.share == 0 {
		return hold, nil
	}
	waiting, cancel := context.WithTimeout(ctx, shareWaits*s.wait)
	defer cancel()
	hold, err = s.shares.Acquire(waiting, fairshare.Caller(ctx), 1, int64(s.share))
	switch {
	case err != nil && ctx.Err() != nil:
		return hold, ctx.Err()
	case err != nil:
		return hold, fault.New(fault.RateLimited, "As many of your requests are under way as one caller may have: wait for their responses.").After(s.wait)
	}
	return hold, nil
}

func (s *slots) acquireSlot(ctx context.Context) error {
	if s.permits.TryAcquire(1) {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, s.enter())
	defer cancel()
	err := s.permits.Acquire(waiting, 1)
	s.leave()
	switch {
	case err == nil && ctx.Err() != nil:
		s.permits.Release(1)
		return ctx.Err()
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fault.New(fault.ServerBusy, "The server is busy; try again in a moment.").After(s.wait)
	}
	return nil
}

// enter adds a caller to the queue and returns how long it may wait.
func (s *slots) enter() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.waiting == 0 {
		s.since = now
	}
	s.waiting++
	if now.Sub(s.since) > s.wait {
		return s.wait / standingPart
	}
	return s.wait
}

func (s *slots) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
}

// inSlot waits for a slot and has answer make the answer in it. The slot is released when the
// answer begins: it is made by then, and the time that a slow client takes to receive it must
// not keep other callers waiting. Its error is SERVER_BUSY or that of answer.
func (s *Server) inSlot(ctx context.Context, w http.ResponseWriter, answer func(http.ResponseWriter) error) error {
	release, err := s.operations.acquire(ctx)
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
