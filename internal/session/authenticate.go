package session

import (
	"context"
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session/token"
)

// A verifier authenticates callers by one kind of credential. Another way to
// authenticate is another verifier, in a file of its own, and a line in
// newVerifiers.
type verifier interface {
	// recognizes reports whether a bearer token has the form of this kind.
	recognizes(bearer string) bool
	// verify returns the principal of a bearer token that recognizes accepts. The
	// error is token.ErrInvalid or NotFound for a token that is not valid.
	verify(ctx context.Context, bearer string) (*auth.Principal, error)
	// expiry returns when a token that verify accepted expires, zero if that is not
	// known any more.
	expiry(bearer string) time.Time
	// identifies reports whether the id is that of a credential of this kind.
	identifies(credentialID string) bool
	// revalidate returns the principal of a credential by its id: for tickets, which
	// were made with it. Errors are those of verify.
	revalidate(ctx context.Context, credentialID string) (*auth.Principal, error)
}

// newVerifiers returns the verifiers in the order in which they are asked.
func newVerifiers(s *Service) []verifier {
	return []verifier{
		&apiKeyVerifier{s.keyStates, s.uses, s.now},
		&accessTokenVerifier{s.sessionStates, s.accessTokens},
	}
}

// Authenticate returns the principal of a bearer token: an access token or an API
// key. Roles and revocations are those of a second ago or younger. The error is
// TOKEN_EXPIRED for an access token of ours that has expired, UNAUTHENTICATED for anything
// else that is wrong with a token, without saying what, and UNAVAILABLE if that cannot be
// decided without the database.
func (s *Service) Authenticate(ctx context.Context, bearer string) (*auth.Principal, error) {
	sequence := s.revocations.currentSequence()
	p, err := presentErrors(ctx, func() (*auth.Principal, error) {
		for _, v := range s.verifiers {
			if v.recognizes(bearer) {
				return v.verify(ctx, bearer)
			}
		}
		return nil, &invalidCredential{detail: credentialMalformed}
	})
	s.cachePrincipal(bearer, p, sequence, err)
	return p, err
}

// IsAccessToken reports whether a bearer token has the form of an access token, valid or not.
func (s *Service) IsAccessToken(bearer string) bool { return isAccessToken(bearer) }

// Expiry returns when a bearer token expires that Authenticate has accepted; zero if
// it is not known any more.
func (s *Service) Expiry(bearer string) time.Time {
	for _, v := range s.verifiers {
		if v.recognizes(bearer) {
			return v.expiry(bearer)
		}
	}
	return time.Time{}
}

// revalidate returns the principal of a credential by its id, by the rules of
// Authenticate.
func (s *Service) revalidate(ctx context.Context, credentialID string) (*auth.Principal, error) {
	return presentErrors(ctx, func() (*auth.Principal, error) {
		for _, v := range s.verifiers {
			if v.identifies(credentialID) {
				return v.revalidate(ctx, credentialID)
			}
		}
		return nil, token.ErrInvalid
	})
}

// presentErrors returns what verify returns, its errors as callers may see them.
func presentErrors(ctx context.Context, verify func() (*auth.Principal, error)) (*auth.Principal, error) {
	p, err := verify()
	switch f, ok := errors.AsType[*fault.Error](err); {
	case err == nil:
		return p, nil
	case errors.Is(err, token.ErrInvalid) || ok && f.Kind() == fault.KindNotFound:
		return nil, refuseCredential(err)
	case ok && f.Kind() == fault.KindUnavailable || ctx.Err() != nil:
		return nil, err
	default:
		return nil, fault.New(fault.Unavailable, "Credentials cannot be checked right now; try again in a moment.").Because(err)
	}
}

func errTokenExpired() error {
	return fault.New(fault.TokenExpired, "The access token has expired; refresh it.")
}

func errInvalidCredential() error {
	return fault.New(fault.Unauthenticated, "The credential is not valid; sign in again, or use another API key.")
}
