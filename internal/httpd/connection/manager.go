// Package connection manages the connections that outlive a request, whatever protocol they
// speak: packages websocket and sse are built on it.
//
// It owns what every protocol needs: admission caps per node and per principal, credential
// re-checks, close reasons, the graceful drain, the operations of a connection with their cap,
// and the slots in which queries and mutations run. How bytes are written is up to package
// outbound. The states of a connection:
//
//	          Admit             protocol is ready
//	request ────────▶ admitted ───────────────────▶ open ◀─┐ keep-alive, credential check
//	   │                 │                           │ └───┘
//	   │ cap reached,    │ upgrade failed,           │ credential ended, client gone, silent,
//	   │ draining        │ no init in time           │ stalled or idle, protocol error, drain
//	   ▼                 ▼                           ▼
//	refused           closing ◀──────────────────────┘
//	(HTTP error)         │ all operations have finished, close frame or last event is written
//	                     ▼
//	                  released (Release: no longer counted)
//
// Invariants. A connection counts against its caps from Admit to Release, and against one
// principal at a time. It closes once, for the first CloseReason that it is given, which is the
// cause of its context. Nothing of it outlives Release: no goroutine, no operation. A slow
// client applies backpressure to its own operations only. A panic closes one connection.
//
// A request that another package answers, such as one that is forwarded to a service, is no
// Connection, but Watch ends it with its credential by the same checks.
//
// What a document may ask for is up to package executor, and how a token becomes a principal
// to the Deps.
package connection

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// CredentialCheck returns the principal that a credential stands for now. An
// Unauthenticated error means that the credential is no longer valid; any other
// error, that it cannot be checked at the moment.
type CredentialCheck func(ctx context.Context) (*auth.Principal, error)

// Caller is the client that opens a connection. The zero value is an anonymous caller.
type Caller struct {
	Principal *auth.Principal
	Check     CredentialCheck // called at most every CheckTime; nil for an anonymous caller
	Expires   time.Time       // when the credential expires; zero if that is not known
}

// Deps are what a Manager calls. The functions are required.
type Deps struct {
	// Authenticate returns the caller that presents a bearer token.
	Authenticate func(ctx context.Context, bearer string) (Caller, error)
	// AcquireSlot waits for a slot in which a query or mutation may run, and returns
	// the function that releases it.
	AcquireSlot func(ctx context.Context) (release func(), err error)
	// AwaitRevocations waits until the revocations of a second ago were passed to Recheck, and
	// returns an error if they cannot be known now. Nil if nothing calls Recheck: credentials are then
	// checked more often.
	AwaitRevocations func(ctx context.Context) error
	// Memory bounds messages and responses; nil for no limit.
	Memory *membudget.Budget
	// OnError is called with errors that are the response of an operation; may be nil.
	OnError func(ctx context.Context, err error)
}

// Connection is a WebSocket, an event stream or a reservation of one.
type Connection interface {
	// Close begins to close the connection and returns at once. Only the first call counts.
	Close(reason *CloseReason)
	// Recheck makes a check of the credential due now if its principal is affected. It
	// does not block.
	Recheck(affected func(*auth.Principal) bool)
}

// Manager admits connections, counts them and drains them. Its methods are safe for
// concurrent use.
type Manager struct {
	cfg  Config
	deps Deps
	exec *executor.Executor
	log  *slog.Logger
	live *subscriptions

	mu       sync.Mutex
	open     map[Connection]string // the key of the principal that each counts against
	index    index
	counts   map[string]int // open connections by that key
	draining bool
	released sync.WaitGroup // waits for all of open
}

// New returns a Manager without connections.
func New(cfg Config, exec *executor.Executor, deps Deps, log *slog.Logger) (*Manager, error) {
	if exec == nil || deps.Authenticate == nil || deps.AcquireSlot == nil || log == nil {
		return nil, errors.New("connection: executor, deps and log are required")
	}
	if deps.AwaitRevocations == nil {
		cfg.CheckTime = cmp.Or(cfg.CheckTime, unfollowedCheckTime)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	live := &subscriptions{limit: cfg.Subscriptions, perPrincipal: cfg.PrincipalSubscriptions, counts: map[string]int{}}
	return &Manager{cfg: cfg, deps: deps, exec: exec, log: log, live: live, open: map[Connection]string{}, index: newIndex(), counts: map[string]int{}}, nil
}

// Config returns the limits in force.
func (m *Manager) Config() Config { return m.cfg }

// principalKey names the connections that are counted together: those of a user, or those of
// anonymous callers from one address.
func principalKey(ctx context.Context, p *auth.Principal) string {
	if p == nil {
		return "address " + auth.ClientFrom(ctx).Network()
	}
	return "user " + string(p.UserID)
}

// Admit counts the connection against the caps of the node and of the principal until
// Release, or refuses it: LIMIT_REACHED for the principal's cap, SERVER_BUSY with a
// Retry-After for the node's and while it drains. ctx tells the address of an anonymous caller.
func (m *Manager) Admit(ctx context.Context, c Connection, p *auth.Principal) error {
	key := principalKey(ctx, p)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.draining:
		return errRetryLater("The server is stopping; connect again.")
	case len(m.open) >= m.cfg.Connections:
		return errRetryLater("The server has as many open connections as it takes; try again in a moment.")
	case m.counts[key] >= m.cfg.PerPrincipal:
		return m.errPrincipalCap()
	}
	m.open[c] = key
	m.index.put(c, p)
	m.counts[key]++
	m.released.Add(1)
	return nil
}

// recount counts the connection against another principal, or refuses to. A connection that
// is released already is NotFound, and not counted again.
func (m *Manager) recount(ctx context.Context, c Connection, p *auth.Principal) error {
	key := principalKey(ctx, p)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch old, ok := m.open[c]; {
	case !ok:
		return ErrNoStream()
	case old == key:
		m.index.put(c, p) // with another credential of the same user
		return nil
	case m.counts[key] >= m.cfg.PerPrincipal:
		return m.errPrincipalCap()
	default:
		m.uncount(old)
	}
	m.open[c] = key
	m.index.put(c, p)
	m.counts[key]++
	return nil
}

// Release ends the counting of an admitted connection, of which nothing runs any more.
func (m *Manager) Release(c Connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.uncount(m.open[c])
	delete(m.open, c)
	m.index.remove(c)
	m.released.Done()
}

func (m *Manager) uncount(key string) {
	if m.counts[key]--; m.counts[key] == 0 {
		delete(m.counts, key)
	}
}

// OpenMemory returns an empty grant of memory of the caller of ctx, which the caller of
// OpenMemory releases.
func (m *Manager) OpenMemory(ctx context.Context) *membudget.Grant { return m.deps.Memory.Open(ctx) }

// Authenticate returns the caller that presents a bearer token.
func (m *Manager) Authenticate(ctx context.Context, bearer string) (Caller, error) {
	return m.deps.Authenticate(ctx, bearer)
}

// RenewCredential replaces the credential of an open connection by a newer one of the same
// user, or by the first one of a client that was anonymous until now. It returns why the
// connection must close if it may not.
func (m *Manager) RenewCredential(ctx context.Context, c Connection, cred *Credential, caller Caller) *CloseReason {
	if reason := cred.renew(caller); reason != nil {
		return reason
	}
	if err := m.recount(ctx, c, caller.Principal); err != nil {
		return ReasonForError(err)
	}
	return nil
}

// Recheck makes the checks of the credentials due now that the revocation concerns, and not only
// after CheckTime. It does not wait for the outcome, and takes time for those connections only.
func (m *Manager) Recheck(r auth.Revocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.index.concerned(r) {
		c.Recheck(r.Concerns)
	}
}

// Monitor checks all credentials each second while it cannot be known which were revoked, until
// ctx ends.
func (m *Manager) Monitor(ctx context.Context) {
	if m.deps.AwaitRevocations == nil {
		return
	}
	tick := time.NewTicker(monitorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := m.deps.AwaitRevocations(ctx); err != nil && ctx.Err() == nil {
			m.Recheck(auth.Revocation{})
		}
	}
}

// monitorInterval is the time between two looks of Monitor.
const monitorInterval = time.Second

// ErrNoStream is the error for a single connection that does not exist, or no longer.
func ErrNoStream() error {
	return fault.New(fault.NotFound, "There is no event stream, and no reservation of one, with this token.")
}

func (m *Manager) errPrincipalCap() error {
	return problem.New(http.StatusTooManyRequests,
		fault.New(fault.LimitReached, "You have %d open connections, which is the most that one may have.", m.cfg.PerPrincipal))
}

func errRetryLater(message string) error {
	return fault.New(fault.ServerBusy, "%s", message).After(RetryAfter)
}

// RetryAfter is how long a client is asked to wait before it connects again.
const RetryAfter = time.Second

// Drain refuses new connections and closes the open ones, spread evenly over the window, so
// that their clients do not all connect to the next node at once. It returns when all are
// released, or when ctx ends.
func (m *Manager) Drain(ctx context.Context, window time.Duration) error {
	open := m.stopAdmitting()
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
		c.Close(ReasonStopping)
	}
	done := make(chan struct{})
	go func() { m.released.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close refuses new connections and begins to close all open ones at once. It does not wait
// until they are released.
func (m *Manager) Close() {
	for _, c := range m.stopAdmitting() {
		c.Close(ReasonStopping)
	}
}

func (m *Manager) stopAdmitting() (open []Connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.draining = true
	for c := range m.open {
		open = append(open, c)
	}
	return open
}

// Guard runs work of a connection. A panic is logged and closes the connection, not the process.
func (m *Manager) Guard(ctx context.Context, c Connection, work func()) {
	defer func() {
		if cause := recover(); cause != nil {
			fault.From(fmt.Errorf("panic: %v\n%s", cause, debug.Stack())).Report(ctx, m.log)
			c.Close(ReasonInternal)
		}
	}()
	work()
}

// CloseOnEncodeError logs that a message could not be encoded and closes the connection.
func (m *Manager) CloseOnEncodeError(ctx context.Context, c Connection, err error) {
	m.log.ErrorContext(ctx, "a stream message could not be encoded", "error", err)
	c.Close(ReasonInternal)
}

// LogClosed writes one record about a connection that has closed.
func (m *Manager) LogClosed(ctx context.Context, message string, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String("client", auth.ClientFrom(ctx).Address))
	m.log.LogAttrs(ctx, slog.LevelInfo, message, append(attrs, requestlog.CallerFields(auth.From(ctx))...)...)
}
