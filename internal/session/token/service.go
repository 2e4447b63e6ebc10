package token

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/bounded"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/uid"
)

// A service token lives for a minute, and is issued again for a third of it, so
// that a service that gets it has 40 s at least.
const (
	serviceTokenTTL   = time.Minute
	serviceTokenReuse = 20 * time.Second
)

// ServiceTokens signs tokens by which services verify which user is calling. A
// token is issued again for a while. It is safe for concurrent use.
type ServiceTokens struct {
	keys   *KeyRing
	cfg    Config
	now    func() time.Time
	issued *bounded.Map[serviceTokenKey, string]
}

type serviceTokenKey struct {
	user    uid.User
	service string
	limited bool
	scope   string
}

// serviceClaims are what a service token states: the registered claims and, of an API key, its scopes as of
// RFC 8693. A session has no such claim, since nothing but its user's roles limits it.
type serviceClaims struct {
	jwt.RegisteredClaims

	Scope *string `json:"scope,omitempty"`
}

// NewServiceTokens returns ServiceTokens signed by the keys.
func NewServiceTokens(keys *KeyRing, cfg Config, now func() time.Time) *ServiceTokens {
	return &ServiceTokens{keys, cfg, now, bounded.NewMap[serviceTokenKey, string](cfg.CacheSize)}
}

// ServiceAudience returns the audience of tokens that are meant for the service.
func ServiceAudience(service string) string { return string(auth.ServiceScope(service)) }

// Issue returns a token by which the service of the name verifies, with our
// published keys, which user is calling it, and to what scopes the API key that the caller uses is
// limited now: an empty list of them if to none. It claims nothing else and is valid
// for a minute and for that service alone: nothing of ours accepts it.
func (t *ServiceTokens) Issue(ctx context.Context, caller *auth.Principal, service string) (string, error) {
	at, key := t.now(), serviceTokenKey{user: caller.UserID, service: service, limited: !caller.Credential.Unscoped()}
	claims := serviceClaims{RegisteredClaims: jwt.RegisteredClaims{
		Issuer: t.cfg.Issuer, Subject: string(caller.UserID), Audience: jwt.ClaimStrings{ServiceAudience(service)},
		ExpiresAt: jwt.NewNumericDate(at.Add(min(serviceTokenTTL, t.cfg.AccessTTL))), IssuedAt: jwt.NewNumericDate(at),
	}}
	if key.limited {
		key.scope = effectiveScope(caller)
		claims.Scope = &key.scope
	}
	if signed, until := t.issued.Get(key); dbclock.Live(until, serviceTokenReuse, at) {
		return signed, nil
	}
	signed, err := t.keys.sign(ctx, at, claims)
	if err != nil {
		return "", err
	}
	t.issued.Put(key, signed, at.Add(min(serviceTokenReuse, t.cfg.AccessTTL/3)), at)
	return signed, nil
}

// effectiveScope returns the scopes that the caller has by its API key, in order, with spaces between them.
func effectiveScope(caller *auth.Principal) string {
	var scopes []string
	for _, s := range caller.Credential.Scopes {
		if caller.May(s) {
			scopes = append(scopes, string(s))
		}
	}
	slices.Sort(scopes)
	return strings.Join(scopes, " ")
}
