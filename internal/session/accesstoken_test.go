package session_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
)

func TestAccessToken_states_user_and_session_but_no_roles(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, _ := f.signIn(t, "ada")
	parts := strings.Split(tokens.AccessToken, ".")
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		must(t, err)
		must(t, json.Unmarshal(b, into))
	}
	kid, _ := f.signer(t)
	if header["alg"] != "EdDSA" || header["kid"] != kid || len(header) != 3 {
		t.Errorf("header = %v, want EdDSA with kid %s", header, kid)
	}
	iat, exp := claims["iat"].(float64), claims["exp"].(float64)
	if claims["sub"] != string(f.ada) || claims["sid"] != string(tokens.Session.ID) || claims["iss"] != "backplane" || exp-iat != 300 {
		t.Errorf("claims = %v, want ada's for five minutes", claims)
	}
	if aud, _ := claims["aud"].([]any); len(aud) != 1 || aud[0] != "backplane" || len(claims) != 6 {
		t.Errorf("claims = %v, want aud backplane, and six in all: no roles", claims)
	}
	if got := f.Expiry("unknown"); !got.IsZero() {
		t.Errorf("Expiry of an unknown token = %s, want none", got)
	}
	if got := f.Expiry(tokens.AccessToken); !got.Equal(tokens.ExpiresAt) {
		t.Errorf("Expiry = %s, want %s", got, tokens.ExpiresAt)
	}
	if float64(tokens.ExpiresAt.Unix()) != exp {
		t.Errorf("ExpiresAt = %s, want that of the token", tokens.ExpiresAt)
	}
}

func TestService_Authenticate_refuses_tampered_tokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	tokens, _ := f.signIn(t, "ada")
	kid, key := f.signer(t)
	_, other, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	now := f.clock.now()
	public := []byte(key.Public().(ed25519.PublicKey))
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})

	good := func() jwt.MapClaims {
		return jwt.MapClaims{
			"iss": "backplane", "aud": "backplane", "sub": string(f.ada), "sid": string(tokens.Session.ID),
			"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		}
	}
	with := func(name string, value any) jwt.MapClaims {
		c := good()
		c[name] = value
		return c
	}
	without := func(name string) jwt.MapClaims {
		c := good()
		delete(c, name)
		return c
	}
	sign := func(m jwt.SigningMethod, kid any, c jwt.MapClaims, key any) string {
		tok := jwt.NewWithClaims(m, c)
		tok.Header["kid"] = kid
		s, err := tok.SignedString(key)
		must(t, err)
		return s
	}
	ed := jwt.SigningMethodEdDSA
	parts := strings.Split(tokens.AccessToken, ".")
	tests := []struct {
		name, token string
		good        bool
	}{
		{"a token as we sign it", sign(ed, kid, good(), key), true},
		{"one of several audiences", sign(ed, kid, with("aud", []string{"x", "backplane"}), key), true},
		{"no algorithm", sign(jwt.SigningMethodNone, kid, good(), jwt.UnsafeAllowNoneSignatureType), false},
		{"HMAC with the public key", sign(jwt.SigningMethodHS256, kid, good(), public), false},
		{"HMAC with the public key as PEM", sign(jwt.SigningMethodHS256, kid, good(), publicPEM), false},
		{"another key under our kid", sign(ed, kid, good(), other), false},
		{"an unknown kid", sign(ed, "unknown", good(), other), false},
		{"no kid", sign(ed, nil, good(), key), false},
		{"a kid that is no text", sign(ed, 7, good(), key), false},
		{"another audience", sign(ed, kid, with("aud", "service:payment"), key), false},
		{"no audience", sign(ed, kid, without("aud"), key), false},
		{"another issuer", sign(ed, kid, with("iss", "elsewhere"), key), false},
		{"no issuer", sign(ed, kid, without("iss"), key), false},
		{"expired, and signed by another key", sign(ed, kid, with("exp", now.Unix()), other), false},
		{"expired, and for another audience", sign(ed, kid, jwt.MapClaims{"iss": "backplane", "aud": "x", "sub": string(f.ada), "sid": string(tokens.Session.ID), "iat": now.Unix(), "exp": now.Unix()}, key), false},
		{"no expiry", sign(ed, kid, without("exp"), key), false},
		{"not good yet", sign(ed, kid, with("nbf", now.Add(time.Minute).Unix()), key), false},
		{"no subject", sign(ed, kid, without("sub"), key), false},
		{"another's subject", sign(ed, kid, with("sub", "usr_00000000000000000000000000"), key), false},
		{"no session", sign(ed, kid, without("sid"), key), false},
		{"a session that is none", sign(ed, kid, with("sid", "ses_1"), key), false},
		{"a session that does not exist", sign(ed, kid, with("sid", "ses_00000000000000000000000000"), key), false},
		{"no signature", parts[0] + "." + parts[1] + ".", false},
		{"another's claims", parts[0] + "." + strings.Split(sign(ed, kid, with("sub", "x"), key), ".")[1] + "." + parts[2], false},
		{"a cut token", tokens.AccessToken[:len(tokens.AccessToken)-1], false},
		{"padding", tokens.AccessToken + "=", false},
		{"another spelling of the signature", spellOtherwise(tokens.AccessToken), false},
		{"an endless token", tokens.AccessToken + strings.Repeat("A", 5000), false},
		{"a refresh token", tokens.RefreshToken, false},
		{"nothing", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // what was refused once is not remembered as good
				_, err := f.Authenticate(t.Context(), tt.token)
				if tt.good {
					wantCode(t, "Authenticate", err, "")
					continue
				}
				wantCode(t, "Authenticate", err, fault.Unauthenticated)
				if e := fault.From(err); e.Kind() != fault.KindUnauthenticated || e.Message != "The credential is not valid; sign in again, or use another API key." || e.Err != nil {
					t.Errorf("the error is %+v, want one that reveals nothing", e)
				}
			}
		})
	}
	t.Run("expired this moment", func(t *testing.T) {
		t.Parallel()
		for range 2 {
			_, err := f.Authenticate(t.Context(), sign(ed, kid, with("exp", now.Unix()), key))
			wantCode(t, "Authenticate", err, fault.TokenExpired)
		}
	})
}

// spellOtherwise changes bits of the last character that no byte is made of.
func spellOtherwise(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last^1])
}

func TestService_Authenticate_refuses_a_cached_token_that_expired(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{CacheSize: 8, AttemptsPerAccount: 100})
	tokens, _ := f.signIn(t, "ada")
	f.clock.add(5*time.Minute - time.Second)
	f.as(t, tokens.AccessToken)
	f.clock.add(time.Second)
	_, err := f.Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate of a cached token that expired", err, fault.TokenExpired)
	for range 50 {
		f.signIn(t, "ada")
	}
	if n := f.CachedSessions(); n > 8 {
		t.Errorf("%d sessions are cached, want at most 8", n)
	}
}

func FuzzService_Authenticate(f *testing.F) {
	fx := newFixture(f, session.Config{CacheSize: 4})
	tokens, ctx := fx.signIn(f, "ada")
	key := fx.key(ctx, f)
	f.Add(tokens.AccessToken)
	f.Add(key)
	f.Add("bpk_")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, bearer string) {
		p, err := fx.Authenticate(t.Context(), bearer)
		if good := bearer == tokens.AccessToken || bearer == key; good != (err == nil) || good && p.UserID != fx.ada {
			t.Errorf("Authenticate(%q) = %+v, %v", bearer, p, err)
		}
	})
}
