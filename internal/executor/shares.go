package executor

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/event"
)

// shareTime is how old a response may be that is given to one more subscriber:
// it may show what an object was like when it was made.
const shareTime = time.Second

// Response is a response of a stream. Subscribers who are equal may have one in
// common, so it must not be changed.
type Response struct {
	*graphql.Response

	once sync.Once
	text []byte
	err  error
}

// Encoded returns what encode makes of the response, made once for all who have
// it in common. All of them must give the same function.
func (r *Response) Encoded(encode func(*graphql.Response) ([]byte, error)) ([]byte, error) {
	r.once.Do(func() { r.text, r.err = encode(r.Response) })
	return r.text, r.err
}

// shares keeps the newest responses that equal subscriptions have in common, up
// to a number of bytes and for shareTime.
type shares struct {
	limit int64

	mu     sync.Mutex
	groups map[digest]*group
	kept   []keptShare // the oldest first
	bytes  int64
}

// group is the live subscriptions with the same operation.
type group struct {
	size atomic.Int32

	mu    sync.Mutex
	found map[turnKey]*share
}

// turnKey says which response of a group: of which event, and for whom.
type turnKey struct {
	at     event.Cursor
	rights string
}

// share is a response that is being made until done is closed.
type share struct {
	begun time.Time
	done  chan struct{}
	resp  *Response // nil if it is for nobody else
}

type keptShare struct {
	group *group
	key   turnKey
	share *share
	bytes int64
}

func newShares(limit int64) *shares { return &shares{limit: limit, groups: map[digest]*group{}} }

// join adds a subscription to its group, until leave is called.
func (s *shares) join(d digest) (g *group, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g = s.groups[d]
	if g == nil {
		g = &group{found: map[turnKey]*share{}}
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

// get returns the response of the key, by resolve unless an equal subscription
// has it or is about to: then it waits. Nil means that ctx ended.
func (s *shares) get(ctx context.Context, g *group, key turnKey, resolve func(common bool) *Response) *Response {
	if g.size.Load() < 2 {
		return resolve(false)
	}
	found, mine := g.claim(key)
	if mine {
		s.fill(g, key, found, resolve)
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

// claim returns the share of the key, or a new one that the caller must fill.
func (g *group) claim(key turnKey) (found *share, mine bool) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if found = g.found[key]; found != nil && now.Sub(found.begun) < shareTime {
		return found, false
	}
	found = &share{begun: now, done: make(chan struct{})}
	g.found[key] = found
	return found, true
}

// fill makes the response of a share. What went wrong is not kept: it may be the
// fault of the moment, and names the request it happened to.
func (s *shares) fill(g *group, key turnKey, sh *share, resolve func(common bool) *Response) {
	defer close(sh.done)
	sh.resp = resolve(true)
	if sh.resp == nil || len(sh.resp.Errors) > 0 {
		g.drop(key, sh)
		return
	}
	s.keep(keptShare{g, key, sh, int64(2*len(sh.resp.Data)) + entryBytes})
}

func (g *group) drop(key turnKey, sh *share) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.found[key] == sh {
		delete(g.found, key)
	}
}

// keep accounts for a share and drops those that are old or too many.
func (s *shares) keep(k keptShare) {
	s.mu.Lock()
	s.kept = append(s.kept, k)
	s.bytes += k.bytes
	n := 0
	for n < len(s.kept) && (s.bytes > s.limit || k.share.begun.Sub(s.kept[n].share.begun) >= shareTime) {
		s.bytes -= s.kept[n].bytes
		n++
	}
	dropped := s.kept[:n]
	s.kept = s.kept[n:]
	s.mu.Unlock()
	for i, d := range dropped {
		d.group.drop(d.key, d.share)
		dropped[i] = keptShare{} // the array lives on until append moves it
	}
}
