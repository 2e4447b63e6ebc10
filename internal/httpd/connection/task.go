package connection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// task is a live operation of a connection.
type task struct {
	id     string
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	cursor string // reached without an event and not yet told to the client

	// Of the goroutine of the operation alone.
	batch batch
	head  []byte // what stands before each result on a socket; nil before the first
}

// reach notes the cursor of a response; only says that it carries no event, so
// that the client is to hear of it when there is time.
func (t *task) reach(cursor string, only bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cursor = ""
	if only {
		t.cursor = cursor
	}
}

// untold returns the cursor that the client has not heard of, once.
func (t *task) untold() (cursor string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	cursor, t.cursor = t.cursor, ""
	return cursor
}

// errDuplicate says that the id of an operation is that of a live one.
var errDuplicate = errors.New("operation exists")

// stopTime is how long a new operation waits for the place of one that was stopped
// and has not ended yet: it may be ending, or writing to a client that does not
// read.
const stopTime = time.Second

// tasks are the operations of a connection. Live are those that may still send;
// one keeps its place until its goroutine ends.
type tasks struct {
	places turn

	mu    sync.Mutex
	live  map[string]*task // by id
	over  bool
	count int // of all there ever were
	ended sync.WaitGroup
}

// begin adds an operation, whose goroutine must call done in the end. Its error
// is errDuplicate or LIMIT_REACHED. It may wait for stopTime.
func (ts *tasks) begin(ctx context.Context, id string) (*task, error) {
	if err := ts.takePlace(ctx, id); err != nil {
		return nil, err
	}
	t, err := ts.add(ctx, id)
	if err != nil {
		ts.places.give()
	}
	return t, err
}

func (ts *tasks) takePlace(ctx context.Context, id string) error {
	if ts.places.try() {
		return nil
	}
	if err := ts.refusal(id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if !ts.places.take(ctx) {
		return ts.errFull()
	}
	return nil
}

// refusal returns why there can be no operation of the id now, nil if there can.
func (ts *tasks) refusal(id string) error {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.refusalLocked(id)
}

func (ts *tasks) refusalLocked(id string) error {
	switch {
	case ts.over:
		return context.Canceled
	case ts.live[id] != nil:
		return errDuplicate
	case len(ts.live) == cap(ts.places):
		return ts.errFull()
	}
	return nil
}

func (ts *tasks) errFull() error {
	return fault.New(fault.Exhausted, fault.LimitReached, "This connection has %d live operations, which is the most that one may have.", cap(ts.places))
}

func (ts *tasks) add(ctx context.Context, id string) (*task, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if err := ts.refusalLocked(id); err != nil {
		return nil, err
	}
	t := &task{id: id}
	t.ctx, t.cancel = context.WithCancel(ctx)
	if ts.live == nil {
		ts.live = map[string]*task{}
	}
	ts.live[id] = t
	ts.count++
	ts.ended.Add(1)
	return t, nil
}

// remove makes room for another operation of the same id. It reports false if
// the client or somebody else was faster: then nothing more is to be sent.
func (ts *tasks) remove(t *task) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.live[t.id] != t {
		return false
	}
	delete(ts.live, t.id)
	return true
}

// stop ends the operation, if there is one.
func (ts *tasks) stop(id string) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.live[id]; t != nil {
		t.cancel()
		delete(ts.live, id)
	}
}

// holds reports whether results of the operation may still be sent.
func (ts *tasks) holds(t *task) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.live[t.id] == t
}

// all returns the live operations.
func (ts *tasks) all() []*task {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	all := make([]*task, 0, len(ts.live))
	for _, t := range ts.live {
		all = append(all, t)
	}
	return all
}

// idle reports whether all operations have ended, and sent what they had to.
func (ts *tasks) idle() bool { return len(ts.places) == 0 }

func (ts *tasks) total() int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.count
}

// wait returns once no operation is left; none can begin any more.
func (ts *tasks) wait() {
	ts.mu.Lock()
	ts.over = true
	ts.mu.Unlock()
	ts.ended.Wait()
}

// done gives back what the operation held.
func (ts *tasks) done(t *task) {
	t.cancel()
	ts.remove(t)
	ts.places.give()
	ts.ended.Done()
}

// sink is where the results of an operation go. It drops what comes after the
// client has stopped the operation.
type sink interface {
	next(t *task, resp *executor.Response) // may keep it until flush, or for more to come
	flush(t *task)
	fail(t *task, errs gqlerror.List) // instead of anything else
	complete(t *task)                 // after everything else
}

// perform runs the operation to its end or to that of its context.
func (s *Server) perform(t *task, op *executor.Operation, out sink) {
	if op.Kind() != ast.Subscription {
		s.performOnce(t, op, out)
		return
	}
	responses := s.exec.Stream(t.ctx, op)
	defer responses.Close()
	idle := func() { out.flush(t) }
	for resp := responses.Next(t.ctx, idle); resp != nil; resp = responses.Next(t.ctx, idle) {
		out.next(t, resp)
	}
	out.flush(t)
	if t.ctx.Err() == nil {
		out.complete(t)
	}
}

func (s *Server) performOnce(t *task, op *executor.Operation, out sink) {
	resp, err := s.runInSlot(t.ctx, op)
	if err != nil {
		out.fail(t, executor.Refuse(err).Errors)
		return
	}
	out.next(t, resp)
	out.flush(t)
	out.complete(t)
}

// runInSlot runs a query or mutation in a slot, which it has given back when it
// returns: how long a client takes to receive the response must not keep others
// waiting.
func (s *Server) runInSlot(ctx context.Context, op *executor.Operation) (*executor.Response, error) {
	release, err := s.deps.AcquireSlot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	resp := &executor.Response{Response: s.exec.Run(ctx, op)}
	_, _ = resp.Encoded(encode) // is work, too; a sink gets the same outcome
	return resp, nil
}

// guarded runs what belongs to a connection. A panic ends that, not the process.
func (s *Server) guarded(ctx context.Context, c connection, run func()) {
	defer func() {
		if cause := recover(); cause != nil {
			fault.From(fmt.Errorf("panic: %v\n%s", cause, debug.Stack())).Report(ctx, s.log)
			c.end(endInternal)
		}
	}()
	run()
}

// logEnd writes one record about a connection that is closed.
func (s *Server) logEnd(ctx context.Context, message string, attrs ...slog.Attr) {
	s.log.LogAttrs(ctx, slog.LevelInfo, message, append(attrs, slog.String("client", auth.ClientFrom(ctx).Address))...)
}
