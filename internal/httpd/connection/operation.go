package connection

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/outbound"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/problem"
)

// MaxIDBytes is how long the id of an operation may be: it is kept, and sent with each result.
const MaxIDBytes = 4 << 10

// Operation is a GraphQL operation that runs on a connection.
type Operation struct {
	ID string // chosen by the client; empty if the connection has this operation alone

	ctx     context.Context
	cancel  context.CancelFunc
	backlog *backlog // of its connection

	mu     sync.Mutex
	cursor string // reached without an event and not yet sent to the client

	// Of the operation's goroutine alone.
	Batch  outbound.Batch
	Prefix []byte // which each result on a WebSocket begins with; nil before the first
}

// NewOperation returns the one operation of a connection, which lives as long as ctx.
func NewOperation(ctx context.Context) *Operation {
	return &Operation{ctx: ctx, cancel: func() {}, backlog: new(backlog)}
}

// Context returns the context of the operation, which ends when the client stops it.
func (o *Operation) Context() context.Context { return o.ctx }

// NoteCursor records the cursor of a response. If the response carries the cursor only, and
// no event, the client is to get it with the next keep-alive.
func (o *Operation) NoteCursor(cursor string, only bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cursor = ""
	if only {
		o.cursor = cursor
	}
}

// TakeCursor returns the cursor that the client does not have yet, once.
func (o *Operation) TakeCursor() (cursor string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	cursor, o.cursor = o.cursor, ""
	return cursor
}

// ErrDuplicateID means that a live operation has the id of a new one.
var ErrDuplicateID = errors.New("an operation of this id is live")

// stopTime is how long a new operation waits for the permit of one that was stopped and has
// not finished yet: it may be returning, or writing to a client that does not read.
const stopTime = time.Second

// Operations are the operations of a connection. Live are those that may still send results;
// each holds a permit until its goroutine has finished.
type Operations struct {
	permits *semaphore.Weighted
	limit   int
	backlog backlog

	mu      sync.Mutex
	live    map[string]*Operation // by id
	running int                   // that hold a permit
	started int                   // in all
	closed  bool
}

// NewOperations returns no operations, of which limit may run at once.
func NewOperations(limit int) *Operations {
	return &Operations{permits: semaphore.NewWeighted(int64(limit)), limit: limit}
}

// Start adds an operation, whose goroutine must call Finish at its end. Its error is
// ErrDuplicateID or LIMIT_REACHED. It may wait for stopTime.
func (ops *Operations) Start(ctx context.Context, id string) (*Operation, error) {
	if err := ops.acquirePermit(ctx, id); err != nil {
		return nil, err
	}
	o, err := ops.add(ctx, id)
	if err != nil {
		ops.permits.Release(1)
	}
	return o, err
}

func (ops *Operations) acquirePermit(ctx context.Context, id string) error {
	if ops.permits.TryAcquire(1) {
		return nil
	}
	if err := ops.checkStart(id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if ops.permits.Acquire(ctx, 1) != nil {
		return ops.errLimit()
	}
	return nil
}

// checkStart returns why no operation of the id can start now, nil if one can.
func (ops *Operations) checkStart(id string) error {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.checkStartLocked(id)
}

func (ops *Operations) checkStartLocked(id string) error {
	switch {
	case ops.closed:
		return context.Canceled
	case ops.live[id] != nil:
		return ErrDuplicateID
	case len(ops.live) == ops.limit:
		return ops.errLimit()
	}
	return nil
}

func (ops *Operations) errLimit() error {
	return problem.New(http.StatusTooManyRequests,
		fault.New(fault.LimitReached, "This connection has %d live operations, which is the most that one may have.", ops.limit))
}

func (ops *Operations) add(ctx context.Context, id string) (*Operation, error) {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	if err := ops.checkStartLocked(id); err != nil {
		return nil, err
	}
	o := &Operation{ID: id, backlog: &ops.backlog}
	o.ctx, o.cancel = context.WithCancel(ctx)
	if ops.live == nil {
		ops.live = map[string]*Operation{}
	}
	ops.live[id] = o
	ops.started++
	ops.running++
	return o, nil
}

// Remove frees the operation's id for another one. It reports false if the operation was
// removed or stopped before: then nothing more is to be sent.
func (ops *Operations) Remove(o *Operation) bool {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	if ops.live[o.ID] != o {
		return false
	}
	delete(ops.live, o.ID)
	return true
}

// Stop cancels and removes the live operation of the id, if there is one.
func (ops *Operations) Stop(id string) {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	if o := ops.live[id]; o != nil {
		o.cancel()
		delete(ops.live, id)
	}
}

// IsLive reports whether results of the operation may still be sent.
func (ops *Operations) IsLive(o *Operation) bool {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.live[o.ID] == o
}

// Live returns the live operations.
func (ops *Operations) Live() []*Operation {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	live := make([]*Operation, 0, len(ops.live))
	for _, o := range ops.live {
		live = append(live, o)
	}
	return live
}

// Idle reports whether all operations have finished, and sent what they had to.
func (ops *Operations) Idle() bool {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.running == 0
}

// Started returns how many operations have started in all.
func (ops *Operations) Started() int {
	ops.mu.Lock()
	defer ops.mu.Unlock()
	return ops.started
}

// Close lets no operation start any more and waits until all have finished.
func (ops *Operations) Close() {
	ops.mu.Lock()
	ops.closed = true
	ops.mu.Unlock()
	_ = ops.permits.Acquire(context.Background(), int64(ops.limit)) // cannot fail
}

// Finish gives back what the operation holds.
func (ops *Operations) Finish(o *Operation) {
	o.cancel()
	ops.Remove(o)
	ops.mu.Lock()
	ops.running--
	ops.mu.Unlock()
	ops.permits.Release(1)
}

// ResultWriter writes the results of operations to a connection. It drops those of an
// operation that the client has stopped.
type ResultWriter interface {
	WriteResult(o *Operation, resp *executor.Response) // may keep it until Flush, or for more to come
	Flush(o *Operation)
	WriteErrors(o *Operation, errs gqlerror.List) // instead of anything else
	WriteComplete(o *Operation)                   // after everything else
}

// Prepare returns the operation that the request asks for, or why it will not run.
func (m *Manager) Prepare(ctx context.Context, req executor.Request) (*executor.Operation, *executor.Refusal) {
	return m.exec.Prepare(ctx, req)
}

// Run runs the operation to its end, or until its context ends. It is run with the rights that the
// credential of its connection has when it begins; if that has ended, the connection closes. Its memory counts against the
// caller from the execution until the result is written, and nothing is executed while much
// waits to be written to the connection.
func (m *Manager) Run(o *Operation, c Connection, cred *Credential, op *executor.Operation, out ResultWriter) {
	if reason := cred.ApplyNotices(o.ctx); reason != nil {
		c.Close(reason)
		return
	}
	grant := m.deps.Memory.Open(o.ctx)
	defer grant.Release()
	ctx := membudget.WithGrant(o.ctx, grant)
	var err error
	if op.Kind() == ast.Subscription {
		err = m.runSubscription(ctx, o, op, out)
	} else {
		err = m.runOnce(ctx, o, op, out)
	}
	if err != nil {
		if m.deps.OnError != nil {
			m.deps.OnError(o.ctx, err)
		}
		out.WriteErrors(o, executor.NewRefusal(err).Errors)
	}
}

// freeRetained is how many bytes the document and the variables of a subscription may take
// before they count against the memory of its caller; the caps of subscriptions bound the sum.
const freeRetained = 32 << 10

func (m *Manager) runSubscription(ctx context.Context, o *Operation, op *executor.Operation, out ResultWriter) error {
	stop, err := m.live.start(principalKey(ctx, auth.From(ctx)))
	if err != nil {
		return err
	}
	defer stop()
	retained := m.deps.Memory.Open(ctx)
	defer retained.Release()
	if err := retained.Take(ctx, op.RetainedBytes()-freeRetained); err != nil {
		return err
	}
	responses := m.exec.Stream(ctx, op)
	defer responses.Close()
	grant, flush := membudget.GrantFrom(ctx), func() { out.Flush(o) }
	for o.backlog.awaitRoom(ctx) == nil {
		resp := responses.Next(ctx, flush)
		if resp == nil {
			break
		}
		o.backlog.add(len(resp.Data))
		out.WriteResult(o, resp)
		o.backlog.add(-len(resp.Data))
		grant.Shrink(0)
	}
	out.Flush(o)
	if ctx.Err() == nil {
		out.WriteComplete(o)
	}
	return nil
}

func (m *Manager) runOnce(ctx context.Context, o *Operation, op *executor.Operation, out ResultWriter) error {
	if err := o.backlog.awaitRoom(ctx); err != nil {
		return err
	}
	resp, err := m.runInSlot(ctx, op)
	if err != nil {
		return err
	}
	o.backlog.add(len(resp.Data))
	defer o.backlog.add(-len(resp.Data))
	out.WriteResult(o, resp)
	out.Flush(o)
	out.WriteComplete(o)
	return nil
}

// runInSlot runs a query or mutation in a slot, which is released when it returns: the time
// that a client takes to receive the response must not keep other callers waiting.
func (m *Manager) runInSlot(ctx context.Context, op *executor.Operation) (*executor.Response, error) {
	release, err := m.deps.AcquireSlot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	result, err := m.exec.Run(ctx, op)
	if err != nil {
		return nil, err
	}
	resp := &executor.Response{Response: result}
	_, _ = resp.Encoded(outbound.EncodeResponse) // encoding is work for the slot, too; the writer gets the same outcome
	return resp, nil
}
