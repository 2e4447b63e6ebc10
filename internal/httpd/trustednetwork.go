package httpd

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// TrustedNetwork is a network whose programs are authenticated by an API key that they do not
// send.
type TrustedNetwork struct {
	Prefix netip.Prefix
	Key    string // API key, as a bearer token
}

// String names the network and hides the key.
func (n TrustedNetwork) String() string { return n.Prefix.String() + "=(hidden)" }

// GoString is String, for %#v.
func (n TrustedNetwork) GoString() string { return n.String() }

// MarshalText is String, for encoders and logs.
func (n TrustedNetwork) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// sortNetworks returns the networks, the smallest first, so that the most specific one counts.
// A network that is the whole internet is refused: it would open the server.
func sortNetworks(networks []TrustedNetwork) ([]TrustedNetwork, error) {
	sorted := slices.Clone(networks)
	for _, n := range sorted {
		if !n.Prefix.IsValid() || n.Prefix.Bits() == 0 || n.Key == "" {
			return nil, fmt.Errorf("httpd config: a trusted network must be a part of the internet and have an API key: %v", n)
		}
	}
	slices.SortStableFunc(sorted, func(a, b TrustedNetwork) int { return b.Prefix.Bits() - a.Prefix.Bits() })
	return sorted, nil
}

// authenticateREST returns the caller of a legacy REST route: by the Authorization header if
// there is one, else by the trusted network that the request comes from.
func (s *Server) authenticateREST(r *http.Request) (connection.Caller, error) {
	if len(r.Header.Values("Authorization")) > 0 || len(s.cfg.TrustedNetworks) == 0 || isFromBrowser(r) {
		return s.authenticateHeader(r)
	}
	addr, err := netip.ParseAddr(s.clientAddress(r))
	known := err == nil && !s.isTrustedProxy(addr) // else it is a proxy that does not name its client
	for _, n := range s.cfg.TrustedNetworks {
		if known && n.Prefix.Contains(addr) {
			caller, err := s.authenticateToken(r.Context(), n.Key)
			noteCaller(r.Context(), caller.Principal)
			return caller, err
		}
	}
	return connection.Caller{}, nil
}

// isFromBrowser reports whether a web page sent the request. A page of any site can make a
// browser inside a trusted network call here, which must not count as a program of that
// network.
func isFromBrowser(r *http.Request) bool {
	for _, name := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Cookie"} {
		if len(r.Header.Values(name)) > 0 {
			return true
		}
	}
	return false
}
