// Package hostcheck refuses requests whose Host header names another host than this server, as
// those of a page that uses DNS rebinding do: its name resolves to our address, so that the
// browser takes us for the origin of the page.
//
// IP literals and localhost are always allowed, since no page can have them as its own name.
package hostcheck

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Hosts are the host names that a server is called by.
type Hosts struct {
	names    []string // lower case, without a port
	suffixes []string // with the dot: what stands behind the * of a pattern
	any      bool
}

// New returns the hosts of a server that listens on the address, host:port, and has more names:
// shop.example, *.shop.example for all names below it, or * for every name.
func New(listen string, names []string) Hosts {
	var h Hosts
	for _, name := range append(slices.Clone(names), listen) {
		name = normalize(name)
		suffix, wildcard := strings.CutPrefix(name, "*")
		switch {
		case name == "*":
			h.any = true
		case wildcard:
			h.suffixes = append(h.suffixes, suffix)
		case name != "":
			h.names = append(h.names, name)
		}
	}
	return h
}

// Allows reports whether the value of a Host header names the server. A request without one is
// of HTTP/1.0, and of no browser.
func (h Hosts) Allows(host string) bool {
	name := normalize(host)
	if name == "" || h.any || name == "localhost" || strings.HasSuffix(name, ".localhost") || isAddress(name) || slices.Contains(h.names, name) {
		return true
	}
	return slices.ContainsFunc(h.suffixes, func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// Middleware passes requests that name the server, and health checks, to next; refuse answers
// the others.
func (h Hosts) Middleware(next http.Handler, refuse http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.Allows(r.Host) || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, r)
	})
}

// normalize returns the name without port, brackets and the dot of the root, in lower case.
func normalize(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
