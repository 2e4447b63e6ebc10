package httpd

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"backplane/internal/auth"
	"backplane/internal/fault"
)

// authenticate returns the request's context with its caller: a stranger if
// there is no bearer token, an error if there is one that is not good.
func (s *Server) authenticate(r *http.Request) (context.Context, error) {
	ctx := r.Context()
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return ctx, nil
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ctx, nil
	}
	token = strings.TrimSpace(token)
	if len(values) > 1 || token == "" || s.deps.Auth == nil {
		return nil, errToken()
	}
	p, err := s.deps.Auth.Authenticate(ctx, token)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errToken()
	}
	return auth.With(ctx, p), nil
}

func errToken() error {
	return fault.New(fault.Unauthenticated, fault.Unauthorized, "The access token is not valid; sign in again.")
}

// maxUserAgent is how many bytes of a User-Agent are kept.
const maxUserAgent = 256

func (s *Server) withClient(ctx context.Context, r *http.Request) context.Context {
	agent := r.UserAgent()
	if len(agent) > maxUserAgent {
		agent = agent[:maxUserAgent]
	}
	return auth.WithClient(ctx, auth.Client{
		Address:   s.address(r),
		UserAgent: strings.ToValidUTF8(agent, ""),
	})
}

func clientAddress(ctx context.Context) string { return auth.ClientFrom(ctx).Address }

// address returns where the request comes from. From the right, each address
// of X-Forwarded-For was written by the one before it, so it counts only as
// long as that one is a trusted proxy.
func (s *Server) address(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	client := peer.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !s.trusted(client) {
			break
		}
		addr, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		client = addr.Unmap().WithZone("")
	}
	return client.String()
}

func (s *Server) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}
