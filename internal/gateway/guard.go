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

// errDenied says that an address may not be called.
var errDenied = errors.New("this address may not be called")

// Policy says where calls may go. Public addresses always may be called;
// link-local ones, those that tell secrets of cloud machines, and what the Guard was told to
// refuse never. The zero value allows nothing private.
type Policy struct {
	AllPrivate bool           // loopback and private networks too, all of them
	Private    []netip.Prefix // or these of them
}

// Guard is a dialer that obeys a Policy. It is safe for concurrent use.
type Guard struct {
	policy   Policy
	resolver *net.Resolver // nil for the system's
	dialer   net.Dialer

	mu     sync.Mutex
	denied map[string]deniedHost // by host:port
}

// deniedHost is what a host that must not be called resolved to, and when.
type deniedHost struct {
	host  string
	port  uint16
	addrs []netip.Addr
	at    time.Time
}

// NewGuard returns a Guard that resolves names by the resolver, nil for the
// system's.
func NewGuard(p Policy, resolver *net.Resolver) *Guard {
	g := &Guard{policy: p, resolver: resolver, denied: map[string]deniedHost{}}
	g.dialer = net.Dialer{Timeout: 10 * time.Second, Resolver: resolver, ControlContext: g.checkDial}
	return g
}

// Deny adds places that are never called, each as host:port: our own
// listeners, the database, Redis. A host that is empty or unspecified stands for every address
// of this machine.
func (g *Guard) Deny(hostports ...string) error {
	for _, hp := range hostports {
		host, port, err := net.SplitHostPort(hp)
		if err != nil {
			return fmt.Errorf("refuse calls to %s: %w", hp, err)
		}
		n, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", port)
		if err != nil {
			return fmt.Errorf("refuse calls to %s: %w", hp, err)
		}
		g.mu.Lock()
		g.denied[hp] = deniedHost{host: host, port: uint16(n)} //nolint:gosec // a port
		g.mu.Unlock()
	}
	return nil
}

// DialContext connects to the address if it may be called.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return g.dialer.DialContext(ctx, network, address)
}

// Transport returns an HTTP transport whose every connection is guarded. The
// caller may change what it must before the first use, but for how it dials.
func (g *Guard) Transport() *http.Transport {
	return &http.Transport{DialContext: g.DialContext, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10}
}

// checkDial is asked with the address that a connection is about to be made to.
func (g *Guard) checkDial(ctx context.Context, network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return errDenied
	}
	return g.checkAddress(ctx, to)
}

func (g *Guard) checkAddress(ctx context.Context, to netip.AddrPort) error {
	ip := embeddedIPv4(to.Addr().Unmap().WithZone(""))
	switch {
	case isForbidden(ip), isPrivate(ip) && !g.allowsPrivate(ip), g.isDenied(ctx, ip, to.Port()):
		return errDenied
	}
	return nil
}

func (g *Guard) allowsPrivate(ip netip.Addr) bool {
	return g.policy.AllPrivate || slices.ContainsFunc(g.policy.Private, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Networks that no service lives in, beside those that netip knows.
var (
	metadata = []netip.Addr{
		netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254"),
		netip.MustParseAddr("fd20:ce::254"),
	} // link-local ones aside
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	ownNAT64  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215: where in it the IPv4 address stands is the network's own business
	sixToFour = netip.MustParsePrefix("2002::/16")
	thisHost  = netip.MustParsePrefix("0.0.0.0/8")
	site      = netip.MustParsePrefix("fec0::/10")     // private before fc00::/7 was
	shared    = netip.MustParsePrefix("100.64.0.0/10") // of carriers, RFC 6598
	reserved  = netip.MustParsePrefix("240.0.0.0/4")   // with the broadcast address
)

// embeddedIPv4 returns the IPv4 address that an IPv6 address stands for, if it does.
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

// resolvedTTL is how long what a refused host resolved to is good.
const resolvedTTL = 30 * time.Second

// isDenied reports whether the address is one of those that are never called.
func (g *Guard) isDenied(ctx context.Context, ip netip.Addr, port uint16) bool {
	g.mu.Lock()
	var same []string
	for hp, r := range g.denied {
		if r.port == port {
			same = append(same, hp)
		}
	}
	g.mu.Unlock()
	return slices.ContainsFunc(same, func(hp string) bool { return slices.Contains(g.deniedAddresses(ctx, hp), ip) })
}

// deniedAddresses returns what a refused host resolves to; if it does not, what it
// did before.
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

// resolveHost returns the addresses of a host of ours. This machine's own stand for one another: a
// listener on one of them may be reached by any.
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
	if host == "" || slices.ContainsFunc(all, netip.Addr.IsUnspecified) || slices.ContainsFunc(all, netip.Addr.IsLoopback) {
		all = append(all, ownAddresses()...)
	}
	return all
}

func ownAddresses() []netip.Addr {
	own := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	addrs, _ := net.InterfaceAddrs() // without them the loopback addresses are left
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap().WithZone(""))
		}
	}
	return own
}
