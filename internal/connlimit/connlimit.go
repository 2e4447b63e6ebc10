// Package connlimit bounds how many connections an HTTP server has open, in all and from one
// address (of IPv6 the /64), so that no client takes all file descriptors by lying idle.
//
// A connection beyond a bound takes the place of an idle one of its address, or is closed.
// Connections that are taken over from net/http (hijacked) are no longer counted: what takes
// them over has bounds of its own.
package connlimit

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/backplane-dev/backplane/internal/auth"
)

// Limiter counts the connections of one server. It is safe for concurrent use.
type Limiter struct {
	total, perAddress int
	exempt            func(netip.Addr) bool
	refused           atomic.Uint64

	mu       sync.Mutex
	open     int
	networks map[string]*network
}

// network is the connections from one address.
type network struct {
	open int
	idle map[net.Conn]struct{} // keep-alive connections between two requests
}

// New returns a Limiter for at most total connections, and perAddress from one address. The
// addresses for which exempt returns true, such as those of proxies, count in total only.
func New(total, perAddress int, exempt func(netip.Addr) bool) *Limiter {
	return &Limiter{total: total, perAddress: perAddress, exempt: exempt, networks: map[string]*network{}}
}

// Refused returns how many connections were closed because of a bound.
func (l *Limiter) Refused() uint64 { return l.refused.Load() }

// ConnState is for http.Server.ConnState.
func (l *Limiter) ConnState(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name, limit := l.networkOf(conn)
	n := l.networks[name]
	switch state {
	case http.StateNew:
		if n == nil {
			n = &network{idle: map[net.Conn]struct{}{}}
			l.networks[name] = n
		}
		n.open++
		l.open++
		if n.open > limit || l.open > l.total {
			l.refused.Add(1)
			n.closeOne(conn)
		}
	case http.StateActive:
		delete(n.idle, conn)
	case http.StateIdle:
		n.idle[conn] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(n.idle, conn)
		l.open--
		if n.open--; n.open == 0 {
			delete(l.networks, name)
		}
	}
}

// closeOne closes an idle connection of the network, or else the new one. The server then
// reports it as closed.
func (n *network) closeOne(fresh net.Conn) {
	for conn := range n.idle {
		delete(n.idle, conn)
		_ = conn.Close() // it fails only if the connection has ended
		return
	}
	_ = fresh.Close() // likewise
}

// networkOf returns what the connection counts as, and how many it may have.
func (l *Limiter) networkOf(conn net.Conn) (name string, limit int) {
	peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return "", l.perAddress
	}
	addr := peer.Addr().Unmap().WithZone("")
	if l.exempt != nil && l.exempt(addr) {
		return addr.String(), l.total
	}
	return auth.Client{Address: addr.String()}.Network(), l.perAddress
}
