package gateway

import (
	"sync"

	"github.com/backplane-dev/backplane/internal/auth"
)

// publicCalls are the open calls of callers that may call a service only because it is public, by the name of
// the service. They end when it is no longer. Their number is bounded by the semaphore.
type publicCalls struct {
	mu        sync.Mutex
	byService map[string]map[*call]struct{}
}

// admitPublic has the call end once its service is no longer public, if the caller has no other right to it. The caller of
// admitPublic has checked that before, but the service may have changed since.
func (g *Gateway) admitPublic(c *call) {
	if auth.LastKnown(c.request.Context()).MayCallServices() {
		return
	}
	g.public.add(c)
	g.endIfRefused(c)
}

// endPublicCalls ends calls to the service whose callers may not call it any more.
func (g *Gateway) endPublicCalls(service string) {
	for _, c := range g.public.to(service) {
		g.endIfRefused(c)
	}
}

func (g *Gateway) endIfRefused(c *call) {
	if _, err := g.deps.Directory.SetForCall(c.request.Context(), c.target.service); err != nil {
		c.timers.expireNow(err)
	}
}

func (p *publicCalls) add(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byService == nil {
		p.byService = map[string]map[*call]struct{}{}
	}
	calls := p.byService[c.target.service]
	if calls == nil {
		calls = map[*call]struct{}{}
		p.byService[c.target.service] = calls
	}
	calls[c] = struct{}{}
}

func (p *publicCalls) remove(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := p.byService[c.target.service]
	if delete(calls, c); len(calls) == 0 {
		delete(p.byService, c.target.service)
	}
}

func (p *publicCalls) to(service string) []*call {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := make([]*call, 0, len(p.byService[service]))
	for c := range p.byService[service] {
		calls = append(calls, c)
	}
	return calls
}
