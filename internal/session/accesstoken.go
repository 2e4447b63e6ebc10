package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/internal/uid"
)

// maxToken bounds a bearer token, in bytes; ours have about 350.
const maxToken = 2048

// errToken is the error for an access token that proves nothing.
var errToken = errors.New("access token not valid")

// claims is what an access token says.
type claims struct {
	jwt.RegisteredClaims
	Session uid.Session `json:"sid"`
}

// proof is what an access token proves.
type proof struct {
	user    uid.User
	session uid.Session
	until   time.Time
}

// tokens signs access tokens and verifies them, each only once: a proof is kept
// until its token expires.
type tokens struct {
	ring   *ring
	cfg    Config
	now    func() time.Time
	parser *jwt.Parser

	mu     sync.RWMutex
	proofs map[[sha256.Size]byte]proof // by hash: memory stays small, and a dump shows no token
}

func newTokens(r *ring, cfg Config, now func() time.Time) *tokens {
	return &tokens{ring: r, cfg: cfg, now: now, proofs: map[[sha256.Size]byte]proof{}, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(cfg.Issuer), jwt.WithAudience(cfg.Audience),
		jwt.WithExpirationRequired(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now),
	)}
}

// issue returns an access token of the session and when it expires.
func (t *tokens) issue(ctx context.Context, s *Session, at time.Time) (string, time.Time, error) {
	until := earlier(at.Add(t.cfg.AccessTTL), s.ExpiresAt).Truncate(time.Second) // a token tells whole seconds
	signed, err := t.ring.sign(ctx, at, claims{jwt.RegisteredClaims{
		Issuer: t.cfg.Issuer, Subject: string(s.UserID), Audience: jwt.ClaimStrings{t.cfg.Audience},
		ExpiresAt: jwt.NewNumericDate(until), IssuedAt: jwt.NewNumericDate(at),
	}, s.ID})
	if err != nil {
		return "", time.Time{}, err
	}
	return signed, until, nil
}

// verify returns what the token proves now. Its error is errToken, or that of
// looking up the keys.
func (t *tokens) verify(ctx context.Context, token string) (proof, error) {
	if len(token) > maxToken {
		return proof{}, errToken
	}
	sum := sha256.Sum256([]byte(token))
	t.mu.RLock()
	p, known := t.proofs[sum]
	t.mu.RUnlock()
	if known {
		if !t.now().Before(p.until) {
			return proof{}, errToken
		}
		return p, nil
	}
	p, err := t.check(ctx, token)
	if err != nil {
		return proof{}, err
	}
	t.keep(sum, p)
	return p, nil
}

// expiry returns when a token that was verified ends, zero if it is not
// remembered.
func (t *tokens) expiry(token string) time.Time {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.proofs[sha256.Sum256([]byte(token))].until
}

// check verifies the signature, the algorithm and the claims.
func (t *tokens) check(ctx context.Context, token string) (proof, error) {
	var c claims
	var lookUp error
	_, err := t.parser.ParseWithClaims(token, &c, func(tok *jwt.Token) (any, error) {
		id, _ := tok.Header["kid"].(string)
		key, err := t.ring.verifier(ctx, id)
		if !errors.Is(err, errToken) {
			lookUp = err
		}
		return key, err
	})
	switch {
	case lookUp != nil:
		return proof{}, lookUp
	case err != nil || c.Subject == "" || !c.Session.Valid():
		return proof{}, errToken
	}
	return proof{uid.User(c.Subject), c.Session, c.ExpiresAt.Time}, nil
}

func (t *tokens) keep(sum [sha256.Size]byte, p proof) {
	at := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	makeRoom(t.proofs, t.cfg.CacheSize, func(p proof) bool { return !at.Before(p.until) })
	t.proofs[sum] = p
}
