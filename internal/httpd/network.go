package httpd

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// TrustedNetwork is a network whose programs are served as if they had shown a key.
type TrustedNetwork struct {
	Prefix netip.Prefix
	Key    string // API key, as a bearer token
}

// String names the network and hides the key.
func (n TrustedNetwork) String() string { return n.Prefix.String() + "=(hidden)" }

// GoString is String, for %#v.
func (n TrustedNetwork) GoString() string { return n.String() }

// orderNetworks returns the networks, the smallest first, so that the nearest one
// counts. One that is the whole internet is refused: it would open the server.
func orderNetworks(all []TrustedNetwork) ([]TrustedNetwork, error) {
	ordered := slices.Clone(all)
	for _, n := range ordered {
		if !n.Prefix.IsValid() || n.Prefix.Bits() == 0 || n.Key == "" {
			return nil, fmt.Errorf("httpd config: a trusted network is a part of the internet and has a key, which %v is not or has not", n)
		}
	}
	slices.SortStableFunc(ordered, func(a, b TrustedNetwork) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	return ordered, nil
}

// routeCaller returns who calls a route: by the Authorization header if there is
// one, else by the network that the request comes from.
func (s *Server) routeCaller(r *http.Request) (connection.Caller, error) {
	if len(r.Header.Values("Authorization")) > 0 || len(s.cfg.TrustedNetworks) == 0 || fromBrowser(r) {
		return s.caller(r)
	}
	addr, err := netip.ParseAddr(s.address(r))
	known := err == nil && !s.trusted(addr) // else it is a proxy that does not say for whom it speaks
	for _, n := range s.cfg.TrustedNetworks {
		if known && n.Prefix.Contains(addr) {
			return s.identify(r.Context(), n.Key)
		}
	}
	return connection.Caller{}, nil
}

// fromBrowser reports whether a page sent the request. A page of anywhere can make
// a browser inside a trusted network call here, which must not count as a program
// of that network.
func fromBrowser(r *http.Request) bool {
	for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Cookie"} {
		if len(r.Header.Values(name)) > 0 {
			return true
		}
	}
	return false
}
