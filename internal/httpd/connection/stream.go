// Package connection owns the transports of GraphQL that outlive a request: sockets
// with the subprotocols graphql-transport-ws and graphql-ws, and event streams
// (GraphQL over SSE) with distinct connections or a single one.
//
// Every connection counts against the caps of its node and of its principal, is
// bounded in memory and time, and looks at its credential again and again: when
// that ends, the connection ends and says why. A client that reads slowly slows
// its own operations only. Nothing of a connection outlives it. What a document
// may ask for is the business of package operation, who may call that of the
// Deps.
package connection

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// CredentialCheck says who a credential stands for at the moment. An Unauthenticated
// error means that it is not good any more; other errors, that nobody can say.
type CredentialCheck func(ctx context.Context) (*auth.Principal, error)

// Caller is who opens a connection. The zero value is a stranger.
type Caller struct {
	Principal *auth.Principal
	Check     CredentialCheck // asked at most every CheckTime; nil for a stranger
	Expires   time.Time       // when the credential ends by itself; zero if that is not known
}

// Deps are what a Server asks others. Both are required.
type Deps struct {
	// Authenticate tells who presents a bearer token.
	Authenticate func(ctx context.Context, bearer string) (Caller, error)
	// AcquireSlot waits for a slot to run a query or mutation in and returns what
	// gives it back.
	AcquireSlot func(ctx context.Context) (release func(), err error)
}

// Server serves sockets and event streams. Its methods are safe for concurrent
// use.
type Server struct {
	cfg  Config
	deps Deps
	exec *executor.Executor
	log  *slog.Logger

	mu           sync.Mutex
	live         map[connection]string // to the owner that it counts for
	owners       map[string]int
	reservations map[string]*reservation // by token
	draining     bool
	ended        sync.WaitGroup // of live
}

// connection is a socket, an event stream or a reservation of one.
type connection interface {
	// end closes the connection and returns at once. Only its first call counts.
	end(why *ending)
	// recheck has the credential looked at soon if the principal behind it is
	// concerned. It does not block.
	recheck(concerns func(*auth.Principal) bool)
}

// New returns a Server without connections.
func New(cfg Config, exec *executor.Executor, deps Deps, log *slog.Logger) (*Server, error) {
	if exec == nil || deps.Authenticate == nil || deps.AcquireSlot == nil || log == nil {
		return nil, errors.New("stream: executor, deps and log are required")
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, deps: deps, exec: exec, log: log,
		live: map[connection]string{}, owners: map[string]int{}, reservations: map[string]*reservation{}}, nil
}

// ownerOf names whose connections are counted together: a user's, or those of
// strangers from one address.
func ownerOf(ctx context.Context, p *auth.Principal) string {
	if p == nil {
		return "address " + auth.ClientFrom(ctx).Address
	}
	return "user " + string(p.UserID)
}

// admit counts the connection until leave is called, or refuses it.
func (s *Server) admit(c connection, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return retryLater("The server is stopping; connect again.")
	case len(s.live) >= s.cfg.Connections:
		return retryLater("The server has as many open connections as it takes; try again in a moment.")
	case s.owners[owner] >= s.cfg.PerPrincipal:
		return s.errCrowded()
	}
	s.live[c] = owner
	s.owners[owner]++
	s.ended.Add(1)
	return nil
}

// readmit counts the connection for another owner, or refuses to. One that has left
// is not counted again.
func (s *Server) readmit(c connection, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old, ok := s.live[c]; {
	case !ok:
		return errGone()
	case old == owner:
		return nil
	case s.owners[owner] >= s.cfg.PerPrincipal:
		return s.errCrowded()
	default:
		s.forget(old)
	}
	s.live[c] = owner
	s.owners[owner]++
	return nil
}

// leave says that nothing of an admitted connection is left.
func (s *Server) leave(c connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(s.live[c])
	delete(s.live, c)
	s.ended.Done()
}

func (s *Server) forget(owner string) {
	if s.owners[owner]--; s.owners[owner] == 0 {
		delete(s.owners, owner)
	}
}

// Recheck has the credentials of those connections looked at soon, and not only
// after CheckTime, whose principals are concerned by what has happened. It does
// not wait for the outcome. A nil principal is a stranger.
func (s *Server) Recheck(concerns func(*auth.Principal) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.live {
		c.recheck(concerns)
	}
}

func (s *Server) errCrowded() error {
	return fault.New(fault.Exhausted, fault.LimitReached, "You have %d open connections, which is the most that one may have.", s.cfg.PerPrincipal)
}

func retryLater(message string) error {
	err := fault.New(fault.Unavailable, fault.ServerBusy, "%s", message)
	err.RetryAfter = retryTime
	return err
}

// retryTime is how long a client is asked to wait before it connects again.
const retryTime = time.Second

// Drain refuses new connections and closes those there are, spread evenly over
// the window, so that their clients do not all come to the next node at once.
// It returns when nothing is left of them, or when ctx ends.
func (s *Server) Drain(ctx context.Context, window time.Duration) error {
	open := s.stopAdmitting()
	pace := time.NewTicker(max(window/time.Duration(max(len(open), 1)), 1))
	defer pace.Stop()
	for i, c := range open {
		if i > 0 {
			select {
			case <-pace.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		c.end(endStopping)
	}
	done := make(chan struct{})
	go func() { s.ended.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close refuses new connections and closes those there are at once. It does not
// wait for their end.
func (s *Server) Close() {
	for _, c := range s.stopAdmitting() {
		c.end(endStopping)
	}
}

func (s *Server) stopAdmitting() (open []connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for c := range s.live {
		open = append(open, c)
	}
	return open
}
