package connection

import (
	"net/http"
	"sync"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// subscriptions counts the subscriptions of all connections against the caps of the node and
// of the principal: each takes about 25 KiB while it waits for an event.
type subscriptions struct {
	limit, perPrincipal int

	mu     sync.Mutex
	total  int
	counts map[string]int // by the key of the principal
}

// start counts a subscription until stop is called. Its error is LIMIT_REACHED for the
// principal's cap, SERVER_BUSY for the node's.
func (s *subscriptions) start(key string) (stop func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.total >= s.limit:
		return nil, errRetryLater("The server has as many live subscriptions as it takes; try again in a moment.")
	case s.counts[key] >= s.perPrincipal:
		return nil, problem.New(http.StatusTooManyRequests,
			fault.New(fault.LimitReached, "You have %d live subscriptions, which is the most that one may have.", s.perPrincipal))
	}
	s.total++
	s.counts[key]++
	return func() { s.stop(key) }, nil
}

func (s *subscriptions) stop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.counts[key]--; s.counts[key] == 0 {
		delete(s.counts, key)
	}
}
