package httpd

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

// authenticate returns the request's context with its caller: a stranger if
// there is no bearer token, an error if there is one that is not good.
func (s *Server) authenticate(r *http.Request) (context.Context, error) {
	who, err := s.caller(r)
	if err != nil {
		if p := s.lastKnown(r, err); p != nil {
			return auth.WithLastKnown(r.Context(), p), nil
		}
		return r.Context(), err
	}
	if who.Principal == nil {
		return r.Context(), nil
	}
	return auth.With(r.Context(), who.Principal), nil
}

// caller returns who sends the request, by its Authorization header.
func (s *Server) caller(r *http.Request) (connection.Caller, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return connection.Caller{}, nil
	}
	token, ok := jsoncodec.BearerToken(values[0])
	switch {
	case !ok:
		return connection.Caller{}, nil
	case len(values) > 1:
		return connection.Caller{}, errToken()
	}
	return s.identify(r.Context(), token)
}

// lastKnown returns who sent the request if that could be told some time ago and
// cannot now, as err says; else nil.
func (s *Server) lastKnown(r *http.Request, err error) *auth.Principal {
	memory, ok := s.deps.Auth.(LastKnownAuthenticator)
	token, bearer := jsoncodec.BearerToken(r.Header.Get("Authorization"))
	if !ok || !bearer || fault.From(err).Kind != fault.Unavailable {
		return nil
	}
	return memory.LastKnown(token)
}

// identify returns who presents the token.
func (s *Server) identify(ctx context.Context, token string) (connection.Caller, error) {
	standing := func(ctx context.Context) (*auth.Principal, error) { return s.principal(ctx, token) }
	p, err := standing(ctx)
	if err != nil {
		return connection.Caller{}, err
	}
	who := connection.Caller{Principal: p, Check: standing}
	if e, ok := s.deps.Auth.(Expirer); ok {
		who.Expires = e.Expiry(token)
	}
	return who, nil
}

func (s *Server) principal(ctx context.Context, token string) (*auth.Principal, error) {
	if token == "" || s.deps.Auth == nil {
		return nil, errToken()
	}
	p, err := s.deps.Auth.Authenticate(ctx, token)
	if err == nil && p == nil {
		err = errToken()
	}
	return p, err
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

// address returns where the request comes from, empty if that is not known.
func (s *Server) address(r *http.Request) string {
	way := s.way(r)
	if len(way) == 0 {
		return ""
	}
	return way[len(way)-1].String()
}

// way returns the addresses that the request came by: first of whoever is connected,
// last of the client. From the right, each address of X-Forwarded-For was written by the one
// before it, so it counts only as long as that one is a trusted proxy.
func (s *Server) way(r *http.Request) []netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil
	}
	way := []netip.Addr{peer.Addr().Unmap().WithZone("")}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if !s.trusted(way[len(way)-1]) {
			break
		}
		addr, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		way = append(way, addr.Unmap().WithZone(""))
	}
	return way
}

func (s *Server) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(s.cfg.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}
