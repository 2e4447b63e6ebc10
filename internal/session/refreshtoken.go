package session

import (
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// refreshToken is what a client shows to get new tokens: the session, its
// generation, and a code that only this installation can compute. The code
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

// refreshTokenOf returns the refresh token of the session's present generation.
func refreshTokenOf(secret [32]byte, s *Session) refreshToken {
	return refreshToken{s.ID, s.Generation, refreshCode(secret, s.ID, s.Generation, s.Nonce)}
}

// genuine reports whether the token was made for the session, by this
// installation.
func (t refreshToken) genuine(secret [32]byte, s *Session) bool {
	want := refreshCode(secret, s.ID, t.generation, s.Nonce)
	return t.session == s.ID && subtle.ConstantTimeCompare([]byte(want), []byte(t.code)) == 1
}

func refreshCode(secret [32]byte, id uid.Session, generation int, nonce []byte) string {
	return base64.RawURLEncoding.EncodeToString(mac(secret, string(id), strconv.Itoa(generation), string(nonce)))
}

func errRefreshToken() error {
	return fault.New(fault.Invalid, fault.RefreshTokenInvalid, "This refresh token is not good any more; sign in again.").At("refreshToken")
}
