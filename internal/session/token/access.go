package token

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/internal/bounded"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/uid"
)

// maxLength bounds a token, in bytes; ours have about 350.
const maxLength = 2048

// ErrInvalid is the error for a token that proves nothing.
var ErrInvalid = errors.New("token not valid")

// ErrExpired is the ErrInvalid of a token that proved something until it expired.
var ErrExpired = fmt.Errorf("%w: it has expired", ErrInvalid)

// accessClaims is the payload of an access token.
type accessClaims struct {
	jwt.RegisteredClaims
	Session uid.Session `json:"sid"`
}

// Claims is what an access token proves.
type Claims struct {
	User      uid.User
	Session   uid.Session
	ExpiresAt time.Time
}

// AccessTokens signs access tokens and verifies each of them once: its claims are
// cached until it expires, by the hash of the token, so that memory stays small
// and a dump shows no token. It is safe for concurrent use.
type AccessTokens struct {
	keys     *KeyRing
	cfg      Config
	now      func() time.Time
	parser   *jwt.Parser
	verified *bounded.Map[[sha256.Size]byte, verifiedToken]
}

// verifiedToken is what a token proves while the key that signed it is not revoked.
type verifiedToken struct {
	Claims
	key string
}

// NewAccessTokens returns AccessTokens signed by the keys.
func NewAccessTokens(keys *KeyRing, cfg Config, now func() time.Time) *AccessTokens {
	return &AccessTokens{keys: keys, cfg: cfg, now: now, verified: bounded.NewMap[[sha256.Size]byte, verifiedToken](cfg.CacheSize), parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience),
		jwt.WithExpirationRequired(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now),
	)}
}

// Issue returns an access token of a session, which ends at the given time, and
// when the token expires.
func (t *AccessTokens) Issue(ctx context.Context, user uid.User, session uid.Session, sessionEnds, at time.Time) (string, time.Time, error) {
	expires := at.Add(t.cfg.AccessTTL)
	if sessionEnds.Before(expires) {
		expires = sessionEnds
	}
	expires = expires.Truncate(time.Second) // a token states whole seconds
	signed, err := t.keys.sign(ctx, at, accessClaims{jwt.RegisteredClaims{
		Issuer: t.cfg.Issuer, Subject: string(user), Audience: jwt.ClaimStrings{t.cfg.Audience},
		ExpiresAt: jwt.NewNumericDate(expires), IssuedAt: jwt.NewNumericDate(at),
	}, session})
	if err != nil {
		return "", time.Time{}, err
	}
	return signed, expires, nil
}

// Verify returns what the token proves now. Its error is ErrInvalid, or that of
// reading the keys. With ErrExpired it returns what the token proved.
func (t *AccessTokens) Verify(ctx context.Context, token string) (Claims, error) {
	if len(token) > maxLength {
		return Claims{}, ErrInvalid
	}
	sum := sha256.Sum256([]byte(token))
	if c, until := t.verified.Get(sum); !until.IsZero() && t.keys.knows(c.key) {
		if !t.now().Before(until) {
			return c.Claims, ErrExpired
		}
		return c.Claims, nil
	}
	c, err := t.parse(ctx, token)
	if err != nil {
		return c.Claims, err
	}
	t.verified.Put(sum, c, c.ExpiresAt, t.now())
	return c.Claims, nil
}

// Expiry returns when a token that was verified expires, zero if its claims are
// not cached.
func (t *AccessTokens) Expiry(token string) time.Time {
	_, until := t.verified.Get(sha256.Sum256([]byte(token)))
	return until
}

// parse verifies the signature, the algorithm and the claims.
func (t *AccessTokens) parse(ctx context.Context, token string) (verifiedToken, error) {
	var c accessClaims
	var readErr error
	parsed, err := t.parser.ParseWithClaims(token, &c, func(tok *jwt.Token) (any, error) {
		id, _ := tok.Header["kid"].(string)
		key, err := t.keys.publicKey(ctx, id)
		if !errors.Is(err, ErrInvalid) {
			readErr = err
		}
		return key, err
	})
	switch {
	case readErr != nil:
		return verifiedToken{}, readErr
	case isExpired(err) && c.Session.Valid():
		return verifiedToken{Claims: Claims{uid.User(c.Subject), c.Session, c.ExpiresAt.Time}}, ErrExpired
	case err != nil || c.Subject == "" || !c.Session.Valid() || c.IssuedAt == nil || dbclock.Future(c.IssuedAt.Time, t.now()):
		return verifiedToken{}, ErrInvalid
	}
	key, _ := parsed.Header["kid"].(string)
	return verifiedToken{Claims{uid.User(c.Subject), c.Session, c.ExpiresAt.Time}, key}, nil
}

// isExpired reports whether a token whose signature is right has expired, and nothing else is wrong with it.
func isExpired(err error) bool {
	return errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) &&
		!errors.Is(err, jwt.ErrTokenInvalidIssuer) && !errors.Is(err, jwt.ErrTokenInvalidAudience)
}
