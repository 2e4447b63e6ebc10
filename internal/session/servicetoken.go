package session

import (
	"context"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/internal/auth"
)

// A token for a service lives for a minute, and is handed out again for a third of it,
// so that whoever gets it has 40 s at least.
const (
	serviceTokenLife  = time.Minute
	serviceTokenReuse = 20 * time.Second
)

// serviceTokens are tokens that may be handed out again. They are bounded.
type serviceTokens struct {
	mu   sync.Mutex
	kept map[tokenFor]keptToken
}

type tokenFor struct{ caller, service string }

type keptToken struct {
	text  string
	until time.Time
}

// ServiceAudience returns the audience of tokens that are meant for the service.
func ServiceAudience(service string) string { return string(auth.ServiceScope(service)) }

// ServiceToken returns a token by which the service of the name can tell, by our
// published keys, which user is calling it. It says nothing else, is good for a minute and
// for that service alone: nothing of ours takes it.
func (s *Service) ServiceToken(ctx context.Context, caller *auth.Principal, service string) (string, error) {
	at, who := s.now(), tokenFor{string(caller.UserID), service}
	if text := s.forServices.again(who, at); text != "" {
		return text, nil
	}
	text, err := s.ring.sign(ctx, at, jwt.RegisteredClaims{
		Issuer: s.cfg.Issuer, Subject: string(caller.UserID), Audience: jwt.ClaimStrings{ServiceAudience(service)},
		ExpiresAt: jwt.NewNumericDate(at.Add(min(serviceTokenLife, s.cfg.AccessTTL))), IssuedAt: jwt.NewNumericDate(at),
	})
	if err != nil {
		return "", err
	}
	s.forServices.keep(who, keptToken{text, at.Add(min(serviceTokenReuse, s.cfg.AccessTTL/3))}, at, s.cfg.CacheSize)
	return text, nil
}

// again returns a token that may be handed out again, empty if there is none.
func (t *serviceTokens) again(who tokenFor, at time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.kept[who]; at.Before(k.until) {
		return k.text
	}
	return ""
}

func (t *serviceTokens) keep(who tokenFor, k keptToken, at time.Time, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept == nil {
		t.kept = map[tokenFor]keptToken{}
	}
	makeRoom(t.kept, size, func(k keptToken) bool { return !at.Before(k.until) })
	t.kept[who] = k
}
