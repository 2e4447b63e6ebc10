package httpd

import (
	"context"
	"net/http"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/security"
)

// Authenticator finds the principal of a bearer token.
type Authenticator interface {
	// Authenticate returns the token's principal. An Unauthenticated error means that the
	// token is not valid; any other error, that it cannot be checked at the moment.
	Authenticate(ctx context.Context, bearer string) (*auth.Principal, error)
}

// Expirer is an Authenticator that knows when tokens expire. Streams then close with the
// reason that the token has expired; without it they close as well, since Authenticate is
// called again.
type Expirer interface {
	// Expiry returns when a token that Authenticate accepts expires, zero if that is not known.
	Expiry(bearer string) time.Time
}

// RevocationFollower is an Authenticator that learns of revocations by itself, and passes them to
// Server.Recheck: live connections then need not ask again and again.
type RevocationFollower interface {
	// AwaitRevocations waits until the revocations of a second ago are known, and returns an
	// error if they cannot be known now.
	AwaitRevocations(ctx context.Context) error
}

// LastKnownAuthenticator is an Authenticator that remembers the principals of tokens.
type LastKnownAuthenticator interface {
	// LastKnown returns the principal of a token as of its last successful check, nil if
	// there was none. While Authenticate is UNAVAILABLE, requests go on with this principal
	// (auth.WithLastKnown): for the few operations that need no database.
	LastKnown(bearer string) *auth.Principal
}

// AccessTokenRecognizer is an Authenticator some of whose tokens are access tokens, which clients
// send with every request and renew when they are refused. Where a request may be anonymous, such a
// token that is not valid makes its caller anonymous (auth.WithRefused): it could not sign in or
// refresh the token otherwise. Any other token is refused always.
type AccessTokenRecognizer interface {
	// IsAccessToken reports whether a token has the form of an access token, valid or not.
	IsAccessToken(bearer string) bool
}

// TicketAuthenticator authenticates event streams of clients that cannot send headers, such
// as a browser's EventSource.
type TicketAuthenticator interface {
	// AuthenticateTicket returns the content of a ticket. A ticket must be accepted again
	// while it is valid, since browsers reconnect with it. An Unauthenticated error means
	// that the ticket is not valid.
	AuthenticateTicket(ctx context.Context, ticket string) (Ticket, error)
}

// Ticket is the content of a ticket: the caller it was made for, and the only request that it
// may be used for.
type Ticket struct {
	Caller  connection.Caller
	Request executor.Request
}

// authenticate returns the request's context with its principal: none for an anonymous
// caller, an error if there is a bearer token that is not valid, unless passRefused passes it.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) (context.Context, error) {
	ctx, _, err := s.authenticateCaller(r)
	if err != nil {
		return s.passRefused(w, r, err)
	}
	return ctx, nil
}

// passRefused returns the context of an anonymous caller for a request whose access token was
// refused with err, and notes the refusal in the response. Any other err is returned.
func (s *Server) passRefused(w http.ResponseWriter, r *http.Request, err error) (context.Context, error) {
	a, ok := s.deps.Auth.(AccessTokenRecognizer)
	token, bearer := jsoncodec.BearerToken(r.Header.Get("Authorization"))
	if !ok || !bearer || !a.IsAccessToken(token) || fault.From(err).Kind() != fault.KindUnauthenticated {
		return r.Context(), err
	}
	s.reportError(r.Context(), err)
	problem.SetChallenge(w.Header(), err)
	return auth.WithRefused(r.Context(), security.Recorded(fault.From(err))), nil
}

// authenticateCaller is authenticate, and returns the caller as well, whose checks accept the
// credential for as long as authenticate does: while it cannot be checked, by the last known
// principal.
func (s *Server) authenticateCaller(r *http.Request) (context.Context, connection.Caller, error) {
	caller, err := s.authenticateHeader(r)
	ctx := withPrincipal(r.Context(), caller)
	if err != nil {
		p := s.lastKnownPrincipal(r, err)
		if p == nil {
			return r.Context(), caller, err
		}
		noteCaller(r.Context(), p)
		token, _ := jsoncodec.BearerToken(r.Header.Get("Authorization"))
		ctx, caller = auth.WithLastKnown(r.Context(), p), s.newCaller(p, token)
	}
	if check := caller.Check; check != nil {
		caller.Check = func(ctx context.Context) (*auth.Principal, error) {
			p, err := check(ctx)
			if err != nil {
				if last := s.lastKnownPrincipal(r, err); last != nil {
					return last, nil
				}
			}
			return p, err
		}
	}
	return ctx, caller, nil
}

// withPrincipal returns the context of the caller, who may be anonymous.
func withPrincipal(ctx context.Context, caller connection.Caller) context.Context {
	if caller.Principal == nil {
		return ctx
	}
	return auth.With(ctx, caller.Principal)
}

// authenticateHeader returns the caller of the request by its Authorization header.
func (s *Server) authenticateHeader(r *http.Request) (connection.Caller, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return connection.Caller{}, nil
	}
	token, ok := jsoncodec.BearerToken(values[0])
	if !ok || len(values) > 1 { // a client that sends a credential must not be taken for an anonymous caller
		return connection.Caller{}, errInvalidToken()
	}
	caller, err := s.authenticateToken(r.Context(), token)
	noteCaller(r.Context(), caller.Principal)
	return caller, err
}

// noteCaller adds the caller to the access log record of the request.
func noteCaller(ctx context.Context, p *auth.Principal) {
	requestlog.AddFields(ctx, requestlog.CallerFields(p)...)
}

// authenticateMessage is authenticateToken for a token in a message of a WebSocket, whose
// refusal is no response of a request.
func (s *Server) authenticateMessage(ctx context.Context, token string) (connection.Caller, error) {
	caller, err := s.authenticateToken(ctx, token)
	if err != nil {
		s.reportError(ctx, err)
	}
	return caller, err
}

// lastKnownPrincipal returns the last known principal of the request's token if err says that
// the token cannot be checked now; else nil.
func (s *Server) lastKnownPrincipal(r *http.Request, err error) *auth.Principal {
	a, ok := s.deps.Auth.(LastKnownAuthenticator)
	token, bearer := jsoncodec.BearerToken(r.Header.Get("Authorization"))
	if !ok || !bearer || fault.From(err).Kind() != fault.KindUnavailable {
		return nil
	}
	return a.LastKnown(token)
}

// authenticateToken returns the caller that presents the token. It waits for a slot, so that while checks
// wait for the database, as many wait as operations may run, and the others are refused. Its
// error may be SERVER_BUSY.
func (s *Server) authenticateToken(ctx context.Context, token string) (connection.Caller, error) {
	release, err := s.authentications.acquire(ctx)
	if err != nil {
		return connection.Caller{}, err
	}
	defer release()
	p, err := s.principalOf(ctx, token)
	if err != nil {
		return connection.Caller{}, err
	}
	return s.newCaller(p, token), nil
}

// newCaller returns the caller with the principal of its token.
func (s *Server) newCaller(p *auth.Principal, token string) connection.Caller {
	caller := connection.Caller{Principal: p, Check: func(ctx context.Context) (*auth.Principal, error) { return s.principalOf(ctx, token) }}
	if e, ok := s.deps.Auth.(Expirer); ok {
		caller.Expires = e.Expiry(token)
	}
	return caller
}

func (s *Server) principalOf(ctx context.Context, token string) (*auth.Principal, error) {
	if token == "" || s.deps.Auth == nil {
		return nil, errInvalidToken()
	}
	p, err := s.deps.Auth.Authenticate(ctx, token)
	if err == nil && p == nil {
		err = errInvalidToken()
	}
	return p, err
}

func errInvalidToken() error {
	return security.Refuse(security.CredentialRefused, "MALFORMED", fault.New(fault.Unauthenticated, "The access token is not valid; sign in again."))
}
