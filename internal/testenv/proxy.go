package testenv

import (
	"net"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// Proxy stands between clients and a server on this machine and does what
// networks do. It ends with its test. Its methods are safe for concurrent use.
type Proxy struct {
	Addr string // where clients connect to, host:port

	target string
	mu     sync.Mutex
	state  flow
	turned chan struct{} // closed when what may flow has changed
	links  map[*link]struct{}
	sent   int
}

type flow int

const (
	flows  flow = iota
	stalls      // connections stay, and nothing gets through
	isCut       // there are no connections
)

// link is a connection through the proxy.
type link struct {
	client, server net.Conn
	lost           bool // it stays, and nothing gets through any more
	closed         bool
}

// NewProxy returns a Proxy to the server at the address, host:port.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", local.Address(0))
	if err != nil {
		t.Fatalf("listen for a proxy: %v", err)
	}
	p := &Proxy{Addr: ln.Addr().String(), target: target, turned: make(chan struct{}), links: make(map[*link]struct{})}
	var accepting sync.WaitGroup
	accepting.Go(func() { p.accept(ln) })
	t.Cleanup(func() {
		_ = ln.Close()
		accepting.Wait()
		p.Cut()
	})
	return p
}

// Cut ends all connections; new ones are ended at once.
func (p *Proxy) Cut() {
	p.setFlow(isCut)
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		p.closeLink(l)
	}
}

// Stall lets nothing through, without a word to either end.
func (p *Proxy) Stall() { p.setFlow(stalls) }

// Heal lets everything through again: also what was held up, but for what
// was lost.
func (p *Proxy) Heal() { p.setFlow(flows) }

// Lose lets nothing through the connections that there are, for good, and tells
// neither end, as a firewall does that has forgotten them. New ones work.
func (p *Proxy) Lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.lost = true
	}
}

// Sent returns how often clients have sent something so far. What a client sends at
// once, such as a pipeline of commands, counts once.
func (p *Proxy) Sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// Redirect leads new connections to another server. Those that are open stay.
func (p *Proxy) Redirect(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *Proxy) currentTarget() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

func (p *Proxy) setFlow(s flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	p.wakeAll()
}

func (p *Proxy) wakeAll() {
	close(p.turned)
	p.turned = make(chan struct{})
}

// closeLink closes both ends of a link. The caller holds the lock.
func (p *Proxy) closeLink(l *link) {
	l.closed = true
	_ = l.client.Close()
	_ = l.server.Close()
	delete(p.links, l)
	p.wakeAll()
}

func (p *Proxy) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return // the test is over
		}
		server, err := net.Dial("tcp", p.currentTarget())
		if err != nil {
			_ = client.Close()
			continue
		}
		p.addLink(&link{client: client, server: server})
	}
}

func (p *Proxy) addLink(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == isCut {
		p.closeLink(l)
		return
	}
	p.links[l] = struct{}{}
	go p.copyData(l, l.client, l.server)
	go p.copyData(l, l.server, l.client)
}

// copyData copies from one end of a link to the other until either is closed.
func (p *Proxy) copyData(l *link, from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !p.forward(l, from == l.client) {
			break
		}
		if _, err := to.Write(buf[:n]); err != nil {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !l.closed {
		p.closeLink(l)
	}
}

// forward waits until something may get through the link; it reports false if
// nothing ever will.
func (p *Proxy) forward(l *link, fromClient bool) bool {
	for {
		p.mu.Lock()
		turned, open, closed := p.turned, p.state == flows && !l.lost, l.closed
		if fromClient && open {
			p.sent++
		}
		p.mu.Unlock()
		if open || closed {
			return !closed
		}
		<-turned
	}
}
