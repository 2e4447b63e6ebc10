// Package connlimit bounds how many connections an HTTP server has open, in all and from one
// address (of IPv6 the /64), so that no client takes all file descriptors by lying idle.
//
// A connection beyond the bound of its address takes the place of an idle one of it, one beyond the
// bound of the server that of an idle one of the address with the most; without any it is
// answered with 503 and closed.
// Connections that are taken over from net/http (hijacked) are no longer counted: what takes
// them over has bounds of its own.
package connlimit

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

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
	closing  map[net.Conn]struct{} // that were closed for others: not counted any more
}

// network is the connections from one address.
type network struct {
	name string
	open int
	idle map[net.Conn]struct{} // keep-alive connections between two requests
}

// New returns a Limiter for at most total connections, and perAddress from one address. The
// addresses for which exempt returns true, such as those of proxies, count in total only.
func New(total, perAddress int, exempt func(netip.Addr) bool) *Limiter {
	return &Limiter{total: total, perAddress: perAddress, exempt: exempt, networks: map[string]*network{}, closing: map[net.Conn]struct{}{}}
}

// Refused returns how many connections were closed because of a bound.
func (l *Limiter) Refused() uint64 { return l.refused.Load() }

// ConnState is for http.Server.ConnState.
func (l *Limiter) ConnState(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.closing[conn]; ok {
		if state == http.StateClosed || state == http.StateHijacked {
			delete(l.closing, conn)
		}
		return
	}
	name, limit := l.networkOf(conn)
	switch state {
	case http.StateNew:
		l.add(conn, name, limit)
	case http.StateActive:
		delete(l.networks[name].idle, conn)
	case http.StateIdle:
		l.networks[name].idle[conn] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		l.remove(conn, name)
	}
}

// add counts a new connection, and closes one if a bound is exceeded.
func (l *Limiter) add(conn net.Conn, name string, limit int) {
	n := l.networks[name]
	if n == nil {
		n = &network{name: name, idle: map[net.Conn]struct{}{}}
		l.networks[name] = n
	}
	n.open++
	l.open++
	switch {
	case n.open > limit:
		l.closeOne(n, conn)
	case l.open > l.total:
		l.closeOne(l.largest(), conn)
	}
}

// largest returns the network with the most connections.
func (l *Limiter) largest() (most *network) {
	for _, n := range l.networks {
		if most == nil || n.open > most.open {
			most = n
		}
	}
	return most
}

// closeOne closes an idle connection of the network, or else the new one.
func (l *Limiter) closeOne(n *network, fresh net.Conn) {
	l.refused.Add(1)
	victim, of := fresh, ""
	for conn := range n.idle {
		victim, of = conn, n.name
		break
	}
	if victim == fresh {
		of, _ = l.networkOf(fresh)
	}
	l.remove(victim, of)
	l.closing[victim] = struct{}{}
	if victim == fresh {
		refuse(victim)
	}
	_ = victim.Close() // it fails only if the connection has ended
}

// refusal answers the first request of a connection that is refused, which may not have arrived yet.
const refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 41\r\n\r\n" +
	"too many connections are open; try again\n"

// refuse tells the client why its connection is closed. A fresh connection takes a few bytes
// without blocking; the deadline is for one that does not.
func refuse(conn net.Conn) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
	_, _ = io.WriteString(conn, refusal) // best effort: the connection ends all the same
}

// remove counts the connection no more.
func (l *Limiter) remove(conn net.Conn, name string) {
	n := l.networks[name]
	delete(n.idle, conn)
	l.open--
	if n.open--; n.open == 0 {
		delete(l.networks, name)
	}
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
