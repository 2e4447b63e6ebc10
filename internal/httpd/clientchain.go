package httpd

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/auth"
)

// maxUserAgentBytes is how much of a User-Agent is kept.
const maxUserAgentBytes = 256

// withClient returns the context with the client of the request: its address and User-Agent.
func (s *Server) withClient(ctx context.Context, r *http.Request) context.Context {
	agent := r.UserAgent()
	if len(agent) > maxUserAgentBytes {
		agent = agent[:maxUserAgentBytes]
	}
	s.warnOfProxy(ctx, r)
	return auth.WithClient(ctx, auth.Client{
		Address:   s.clientAddress(r),
		UserAgent: strings.ToValidUTF8(agent, ""),
	})
}

// MetUntrustedProxy reports whether a request had an X-Forwarded-For of an untrusted proxy.
func (s *Server) MetUntrustedProxy() bool { return s.proxyWarned.Load() }

// warnOfProxy logs once that a proxy is not trusted: all its clients then share the limits of one
// address.
func (s *Server) warnOfProxy(ctx context.Context, r *http.Request) {
	if len(r.Header["X-Forwarded-For"]) == 0 || s.proxyWarned.Load() {
		return
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || s.isTrustedProxy(peer.Addr().Unmap().WithZone("")) || s.proxyWarned.Swap(true) {
		return
	}
	s.log.WarnContext(ctx, "X-Forwarded-For of an untrusted proxy is ignored, so its clients share the limits of one address: name it in BACKPLANE_TRUSTED_PROXIES, unless a client sent the header",
		"address", peer.Addr().String())
}

// clientAddress returns the address of the client, empty if it is not known.
func (s *Server) clientAddress(r *http.Request) string {
	chain := s.clientChain(r)
	if len(chain) == 0 {
		return ""
	}
	return chain[len(chain)-1].String()
}

// clientChain returns the addresses that the request came through: first the connected peer,
// last the client. From the right, each address of X-Forwarded-For was written by the one
// before it, so it counts only as long as that one is a trusted proxy.
func (s *Server) clientChain(r *http.Request) []netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	chain := []netip.Addr{peer.Addr().Unmap().WithZone("")}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(forwarded) {
		if !s.isTrustedProxy(chain[len(chain)-1]) {
			break
		}
		addr, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			break
		}
		chain = append(chain, addr.Unmap().WithZone(""))
	}
	return chain
}

func (s *Server) isTrustedProxy(addr netip.Addr) bool {
	return slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// stripUntrustedForwarded removes from the request the forwarded headers that no trusted proxy
// has written.
func (s *Server) stripUntrustedForwarded(r *http.Request) {
	chain := s.clientChain(r)
	if len(chain) == 0 || !s.isTrustedProxy(chain[0]) {
		for name := range r.Header {
			if isForwardedHeader(name) {
				delete(r.Header, name)
			}
		}
		return
	}
	r.Header.Del("X-Forwarded-For")
	if forwarded := chain[1:]; len(forwarded) > 0 {
		r.Header.Set("X-Forwarded-For", formatForwardedFor(forwarded))
	}
}

// isForwardedHeader reports whether a header names the client that a proxy forwards for. To
// many servers X_Real_IP is the same as X-Real-IP.
func isForwardedHeader(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return name == "Forwarded" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-")
}

// formatForwardedFor writes a chain as X-Forwarded-For has it, the client first.
func formatForwardedFor(chain []netip.Addr) string {
	text := make([]string, 0, len(chain))
	for _, addr := range slices.Backward(chain) {
		text = append(text, addr.String())
	}
	return strings.Join(text, ", ")
}
