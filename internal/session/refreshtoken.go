package session

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Refresh exchanges a refresh token for new tokens. A token is good once, and
// for 30 seconds more, in which it gives tokens of the same generation as the
// first time; shown later it ends its session and records session.revoked. Every
// token that is not good gives REFRESH_TOKEN_INVALID.
func (s *Service) Refresh(ctx context.Context, token string) (*Tokens, error) {
	t, ok := parseRefreshToken(token)
	if !ok {
		return nil, s.refuseRefreshToken(ctx, credentialMalformed, nil)
	}
	x, acct, err := s.store.SessionWithAccount(ctx, t.session)
	switch {
	case fault.Is(err, CodeSessionNotFound):
		return nil, s.refuseRefreshToken(ctx, credentialUnknown, nil)
	case err != nil:
		return nil, err
	case !t.matches(s.refreshSecret, x): // a forged token must not end a session
		return nil, s.refuseRefreshToken(ctx, credentialUnknown, nil)
	case !acct.Active:
		return nil, s.refuseRefreshToken(ctx, credentialRevoked, x)
	}
	at, good, ends := s.now(), false, false
	x, err = s.store.UpdateSession(ctx, claim.None, t.session, func(x *Session) error {
		ends = x.Live(at)
		good = x.Exchange(t.generation, s.lifetimes, at)
		return nil
	})
	if err != nil {
		return nil, missingIsInvalid(err)
	}
	if !good {
		s.sessionStates.invalidate(string(x.ID))
		if ends { // by this token, which is recorded with the session
			return nil, errRefreshToken()
		}
		return nil, s.refuseRefreshToken(ctx, reasonOfEnd(x), x)
	}
	return s.issueTokens(ctx, x)
}

// missingIsInvalid is for a session that was removed a moment ago.
func missingIsInvalid(err error) error {
	if fault.Is(err, CodeSessionNotFound) {
		return errRefreshToken()
	}
	return err
}

// refreshToken is what a client exchanges for new tokens: the session, its
// generation, and an HMAC that only this installation can compute. The HMAC
// depends on a nonce of the session too, so that the secret alone forges nothing.
type refreshToken struct {
	session    uid.Session
	generation int
	code       string // base64url
}

// maxGeneration keeps a generation in nine digits: 90 days of one refresh every
// 10 milliseconds.
const maxGeneration = 999_999_999

// codeLen is the length of an HMAC-SHA256 in base64url.
const codeLen = 43

func (t refreshToken) String() string {
	return string(t.session) + "." + strconv.Itoa(t.generation) + "." + t.code
}

// parseRefreshToken reads a token that String made; ok is false for any other.
func parseRefreshToken(s string) (t refreshToken, ok bool) {
	id, rest, _ := strings.Cut(s, ".")
	generation, code, _ := strings.Cut(rest, ".")
	if len(generation) > 9 || len(code) != codeLen {
		return refreshToken{}, false
	}
	n, err := strconv.Atoi(generation)
	t = refreshToken{uid.Session(id), n, code}
	if err != nil || n < 1 || n > maxGeneration || !t.session.Valid() || t.String() != s {
		return refreshToken{}, false
	}
	return t, true
}

// refreshTokenOf returns the refresh token of the session's current generation.
func refreshTokenOf(secret [32]byte, s *Session) refreshToken {
	return refreshToken{s.ID, s.Generation, refreshCode(secret, s.ID, s.Generation, s.Nonce)}
}

// matches reports whether the token was made for the session, by this
// installation.
func (t refreshToken) matches(secret [32]byte, s *Session) bool {
	want := refreshCode(secret, s.ID, t.generation, s.Nonce)
	return t.session == s.ID && subtle.ConstantTimeCompare([]byte(want), []byte(t.code)) == 1
}

func refreshCode(secret [32]byte, id uid.Session, generation int, nonce []byte) string {
	return base64.RawURLEncoding.EncodeToString(secrets.MAC(secret, string(id), strconv.Itoa(generation), string(nonce)))
}

func errRefreshToken() error {
	return fault.New(CodeRefreshTokenInvalid, "This refresh token is not good any more; sign in again.").At("refreshToken")
}
