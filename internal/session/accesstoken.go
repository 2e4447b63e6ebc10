package session

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// accessTokenVerifier authenticates callers by the access tokens of sessions.
type accessTokenVerifier struct {
	states *stateCache
	tokens *token.AccessTokens
}

func (v *accessTokenVerifier) recognizes(bearer string) bool { return isAccessToken(bearer) }

func isAccessToken(bearer string) bool { return strings.Count(bearer, ".") == 2 }

func (v *accessTokenVerifier) verify(ctx context.Context, bearer string) (*auth.Principal, error) {
	c, err := v.tokens.Verify(ctx, bearer)
	proved := &auth.Principal{UserID: c.User, Credential: auth.SessionCredential(c.Session)}
	switch {
	case errors.Is(err, token.ErrExpired):
		return nil, &invalidCredential{detail: credentialExpired, principal: proved, refreshable: true}
	case err != nil:
		return nil, err
	}
	p, err := v.principal(ctx, string(c.Session), func(st *credentialState) bool { return st.principal.UserID == c.User })
	if fault.Is(err, CodeSessionNotFound) {
		return nil, &invalidCredential{detail: credentialRevoked, principal: proved} // it was removed
	}
	return p, err
}

func (v *accessTokenVerifier) expiry(bearer string) time.Time { return v.tokens.Expiry(bearer) }

func (v *accessTokenVerifier) identifies(credentialID string) bool {
	return uid.Session(credentialID).Valid()
}

func (v *accessTokenVerifier) revalidate(ctx context.Context, credentialID string) (*auth.Principal, error) {
	return v.principal(ctx, credentialID, anyState)
}

func (v *accessTokenVerifier) principal(ctx context.Context, id string, matches func(*credentialState) bool) (*auth.Principal, error) {
	st, err := v.states.live(ctx, id, matches)
	if err != nil {
		return nil, err
	}
	return st.principal, nil
}

func (s *Service) readSessionState(ctx context.Context, id string) (*credentialState, error) {
	x, acct, err := s.store.SessionWithAccount(ctx, uid.Session(id))
	if err != nil {
		return nil, err
	}
	p := &auth.Principal{UserID: acct.UserID, Roles: acct.Roles, Credential: auth.SessionCredential(x.ID)}
	return &credentialState{principal: p, active: acct.Active && x.RevokedAt == nil, expiresAt: x.ExpiresAt}, nil
}
