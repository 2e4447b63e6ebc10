package executor

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// shareTime bounds the age of a response that is given to another subscriber: it shows
// objects as they were when it was made.
const shareTime = time.Second

// sharedResponses makes each response of equal subscriptions once and keeps the newest,
// up to a number of bytes and for shareTime. It is a singleflight whose result stays
// valid for a time and whose errors are not shared, which x/sync/singleflight is not.
type sharedResponses struct {
	limit int64

	mu       sync.Mutex
	groups   map[digest]*shareGroup
	retained []retainedResponse // the oldest first
	bytes    int64
}

// shareGroup holds the responses of the live subscriptions with the same operation.
type shareGroup struct {
	size atomic.Int32

	mu        sync.Mutex
	responses map[eventKey]*sharedResponse
}

// eventKey identifies a response of a group: its event, and the subscribers that may
// share it.
type eventKey struct {
	cursor   event.Cursor
	shareKey string
}

// sharedResponse is a response that is being made until done is closed.
type sharedResponse struct {
	begun time.Time
	done  chan struct{}
	resp  *Response // nil if it is not shared
}

type retainedResponse struct {
	group *shareGroup
	key   eventKey
	share *sharedResponse
	bytes int64
}

func newSharedResponses(limit int64) *sharedResponses {
	return &sharedResponses{limit: limit, groups: map[digest]*shareGroup{}}
}

// joinGroup adds a subscription to its group, until leave is called.
func (s *sharedResponses) joinGroup(d digest) (g *shareGroup, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g = s.groups[d]
	if g == nil {
		g = &shareGroup{responses: map[eventKey]*sharedResponse{}}
		s.groups[d] = g
	}
	g.size.Add(1)
	return g, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if g.size.Add(-1) == 0 {
			delete(s.groups, d)
		}
	})
}

// getOrResolve returns the response of the key. It calls resolve unless an equal
// subscription has the response or is resolving it; then it waits. Nil means that ctx
// ended.
func (s *sharedResponses) getOrResolve(ctx context.Context, g *shareGroup, key eventKey, resolve func(shared bool) *Response) *Response {
	if g.size.Load() < 2 {
		return resolve(false)
	}
	found, mine := g.claimResponse(key)
	if mine {
		s.resolveShared(g, key, found, resolve)
	} else {
		select {
		case <-found.done:
		case <-ctx.Done():
			return nil
		}
	}
	if found.resp == nil || len(found.resp.Errors) > 0 && !mine {
		return resolve(false)
	}
	return found.resp
}

// claimResponse returns the response of the key, or a new one that the caller must
// resolve.
func (g *shareGroup) claimResponse(key eventKey) (found *sharedResponse, mine bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if found = g.responses[key]; found != nil && now.Sub(found.begun) < shareTime {
		return found, false
	}
	found = &sharedResponse{begun: now, done: make(chan struct{})}
	g.responses[key] = found
	return found, true
}

// resolveShared resolves a claimed response. A response with errors is not kept: the
// cause may be transient, and the errors name the request they happened to.
func (s *sharedResponses) resolveShared(g *shareGroup, key eventKey, sh *sharedResponse, resolve func(shared bool) *Response) {
	defer close(sh.done)
	sh.resp = resolve(true)
	if sh.resp == nil || len(sh.resp.Errors) > 0 {
		g.dropResponse(key, sh)
		return
	}
	s.retain(retainedResponse{g, key, sh, int64(2*len(sh.resp.Data)) + entryBytes})
}

func (g *shareGroup) dropResponse(key eventKey, sh *sharedResponse) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.responses[key] == sh {
		delete(g.responses, key)
	}
}

// retain accounts for a response and drops those that are too old or exceed the limit.
func (s *sharedResponses) retain(k retainedResponse) {
	s.mu.Lock()
	s.retained = append(s.retained, k)
	s.bytes += k.bytes
	n := 0
	for n < len(s.retained) && (s.bytes > s.limit || k.share.begun.Sub(s.retained[n].share.begun) >= shareTime) {
		s.bytes -= s.retained[n].bytes
		n++
	}
	dropped := s.retained[:n]
	s.retained = s.retained[n:]
	s.mu.Unlock()
	for i, d := range dropped {
		d.group.dropResponse(d.key, d.share)
		dropped[i] = retainedResponse{} // the array stays in memory until append reallocates it
	}
}
