package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// ErrDenied is the error for an address that must not be called.
var ErrDenied = errors.New("this address may not be called")

// Policy says which addresses may be called. Public ones always may. Link-local addresses, those of
// cloud metadata services, and those in Denied never may. The zero value allows no private network.
type Policy struct {
	AllPrivate bool           // all loopback and private networks
	Private    []netip.Prefix // these networks only
	// Denied are addresses as host:port: the server's own listeners, the database, Redis, brokers. An empty or
	// unspecified host stands for every address of this machine.
	Denied []string
}

// Guard is a dialer that protects against SSRF: it connects only to addresses that its Policy allows. It
// checks the address after name resolution, as the connection is made, so that DNS rebinding gains
// nothing. It is safe for concurrent use.
type Guard struct {
	policy   Policy
	resolver *net.Resolver // nil for the system's resolver
	dialer   net.Dialer

	mu     sync.Mutex
	denied map[string]deniedHost // by host:port
}

// deniedHost is a host that must not be called, with its addresses when they were last resolved.
type deniedHost struct {
	host  string
	port  uint16
	addrs []netip.Addr
	at    time.Time
}

// NewGuard returns a Guard that resolves names by the resolver; nil for the system's.
func NewGuard(p Policy, resolver *net.Resolver) (*Guard, error) {
	g := &Guard{policy: p, resolver: resolver, denied: map[string]deniedHost{}}
	g.dialer = net.Dialer{Timeout: 10 * time.Second, Resolver: resolver, ControlContext: g.checkDial}
	for _, hp := range p.Denied {
		host, port, err := net.SplitHostPort(hp)
		if err != nil {
			return nil, fmt.Errorf("deny calls to %s: %w", hp, err)
		}
		n, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", port)
		if err != nil {
			return nil, fmt.Errorf("deny calls to %s: %w", hp, err)
		}
		g.denied[hp] = deniedHost{host: host, port: uint16(n)} //nolint:gosec // a port
	}
	return g, nil
}

// DialContext connects to the address if it may be called.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return g.dialer.DialContext(ctx, network, address)
}

// Transport returns an HTTP transport that dials through the Guard. The caller may change it before the
// first use, but not how it dials.
func (g *Guard) Transport() *http.Transport {
	return &http.Transport{DialContext: g.DialContext, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10}
}

// checkDial is the control function of the dialer: it sees the resolved address before the connection is
// made.
func (g *Guard) checkDial(ctx context.Context, network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return ErrDenied
	}
	return g.checkAddress(ctx, to)
}

func (g *Guard) checkAddress(ctx context.Context, to netip.AddrPort) error {
	ip := embeddedIPv4(to.Addr().Unmap().WithZone(""))
	switch {
	case isForbidden(ip), isPrivate(ip) && !g.allowsPrivate(ip), g.isDenied(ctx, ip, to.Port()):
		return ErrDenied
	}
	return nil
}

func (g *Guard) allowsPrivate(ip netip.Addr) bool {
	return g.policy.AllPrivate || slices.ContainsFunc(g.policy.Private, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Networks that never hold a service, besides those that netip knows.
var (
	metadata = []netip.Addr{
		netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254"),
		netip.MustParseAddr("fd20:ce::254"),
	} // cloud metadata services at addresses that are not link-local
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	ownNAT64  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215: the network decides where in it the IPv4 address is
	sixToFour = netip.MustParsePrefix("2002::/16")
	thisHost  = netip.MustParsePrefix("0.0.0.0/8")
	site      = netip.MustParsePrefix("fec0::/10")     // private, replaced by fc00::/7
	shared    = netip.MustParsePrefix("100.64.0.0/10") // carrier-grade NAT, RFC 6598
	reserved  = netip.MustParsePrefix("240.0.0.0/4")   // includes the broadcast address
)

// embeddedIPv4 returns the IPv4 address inside an IPv6 translation address, else ip itself.
func embeddedIPv4(ip netip.Addr) netip.Addr {
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return ip
}

func isForbidden(ip netip.Addr) bool {
	return !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || thisHost.Contains(ip) || reserved.Contains(ip) || ownNAT64.Contains(ip) || slices.Contains(metadata, ip)
}

func isPrivate(ip netip.Addr) bool {
	return ip.IsLoopback() || ip.IsPrivate() || shared.Contains(ip) || site.Contains(ip)
}

// resolvedTTL is how long the resolved addresses of a denied host are valid.
const resolvedTTL = 30 * time.Second

// isDenied reports whether the address belongs to a denied host and port.
func (g *Guard) isDenied(ctx context.Context, ip netip.Addr, port uint16) bool {
	g.mu.Lock()
	var same []string
	for hp, r := range g.denied {
		if r.port == port {
			same = append(same, hp)
		}
	}
	g.mu.Unlock()
	return slices.ContainsFunc(same, func(hp string) bool {
		denied := g.deniedAddresses(ctx, hp)
		// Loopback is one network: what listens on an address of it, or on all of this machine's,
		// may answer on any other of its 16 million.
		return slices.Contains(denied, ip) || ip.IsLoopback() && slices.ContainsFunc(denied, netip.Addr.IsLoopback)
	})
}

// deniedAddresses returns the addresses of a denied host; if it does not resolve, the former ones.
func (g *Guard) deniedAddresses(ctx context.Context, hp string) []netip.Addr {
	g.mu.Lock()
	r := g.denied[hp]
	g.mu.Unlock()
	if time.Since(r.at) < resolvedTTL {
		return r.addrs
	}
	if found := resolveHost(ctx, r.host); len(found) > 0 {
		r.addrs, r.at = found, time.Now()
		g.mu.Lock()
		g.denied[hp] = r
		g.mu.Unlock()
	}
	return r.addrs
}

// resolveHost returns the addresses of a host of the server's own. If one of them is of this machine, all of
// the machine's addresses count: what listens there may be reached by any, such as a Redis that is configured
// by the machine's address in the network and listens on every one.
func resolveHost(ctx context.Context, host string) (all []netip.Addr) {
	if host != "" {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil
		}
		for _, ip := range found {
			all = append(all, ip.Unmap().WithZone(""))
		}
	}
	own := ownAddresses()
	if host == "" || slices.ContainsFunc(all, func(ip netip.Addr) bool { return ip.IsUnspecified() || ip.IsLoopback() || slices.Contains(own, ip) }) {
		all = append(all, own...)
	}
	return all
}

func ownAddresses() []netip.Addr {
	own := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	addrs, _ := net.InterfaceAddrs() // without them the loopback addresses remain
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap().WithZone(""))
		}
	}
	return own
}
