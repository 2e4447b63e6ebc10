package session_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
	"github.com/backplane-dev/backplane/internal/uid"
)

const password = "correct horse battery staple"

// clock is a time that stands still until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newTestClock() *clock { return &clock{t: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fixture is a service on a store in memory, with ada, who has a password.
type fixture struct {
	*session.Service
	store  *sessiontest.Memory
	clock  *clock
	sealer *secrets.Sealer
	ada    uid.User
}

func newFixture(t testing.TB, cfg session.Config) *fixture {
	t.Helper()
	f := &fixture{store: sessiontest.NewMemory(), clock: newTestClock()}
	f.sealer = openSealer(t, f.store)
	f.Service = f.node(t, cfg)
	f.ada = f.user(t, "ada", auth.Customer)
	return f
}

func openSealer(t testing.TB, v secrets.Store) *secrets.Sealer {
	t.Helper()
	key, err := secrets.ParseMasterKey(strings.Repeat("k", 32))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := secrets.OpenSealer(t.Context(), v, key)
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}

// node returns another service on the same store.
func (f *fixture) node(t testing.TB, cfg session.Config) *session.Service {
	t.Helper()
	s, err := session.NewService(f.store, f.sealer, f.clock.now, slog.New(slog.DiscardHandler), session.Cheap(cfg))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// user adds an account with the password.
func (f *fixture) user(t testing.TB, name string, roles ...auth.Role) uid.User {
	t.Helper()
	hash, err := f.HashPassword(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	return f.store.AddAccount(t, sessiontest.NewAccount{Username: name, Email: name + "@example.com", Roles: roles, PasswordHash: hash})
}

// signIn signs a user in, and returns the tokens and the context it acts in.
func (f *fixture) signIn(t testing.TB, name string) (*session.Tokens, context.Context) {
	t.Helper()
	tokens, err := f.SignIn(from(t, "192.0.2.1"), name, password)
	if err != nil {
		t.Fatalf("SignIn(%s) failed: %v", name, err)
	}
	return tokens, f.as(t, tokens.AccessToken)
}

// as returns a context in which the bearer of the token acts.
func (f *fixture) as(t testing.TB, bearer string) context.Context {
	t.Helper()
	p, err := f.Authenticate(t.Context(), bearer)
	if err != nil {
		t.Fatalf("Authenticate failed: %v", err)
	}
	return auth.With(from(t, "192.0.2.1"), p)
}

// keyOf makes an API key of the user as the operator does.
func (f *fixture) keyOf(t testing.TB, owner uid.User, scopes ...auth.Scope) string {
	t.Helper()
	_, text, err := f.IssueAPIKey(t.Context(), owner, session.CreateAPIKeyInput{Name: "key", Scopes: scopes})
	must(t, err)
	return text
}

// from returns a context of an anonymous caller at the address.
func from(t testing.TB, address string) context.Context {
	t.Helper()
	return auth.WithClient(t.Context(), auth.Client{Address: address, UserAgent: "test"})
}

// signer returns the key that signs access tokens now.
func (f *fixture) signer(t testing.TB) (kid string, key ed25519.PrivateKey) {
	t.Helper()
	tokens, _ := f.signIn(t, "ada")
	var header struct{ Kid string }
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(tokens.AccessToken, ".")[0])
	must(t, err)
	must(t, json.Unmarshal(b, &header))
	stored, err := f.store.SigningKeys(t.Context())
	must(t, err)
	for _, k := range stored {
		if k.ID == header.Kid {
			seed, err := f.sealer.Unseal("signing-key:"+k.ID, k.Sealed)
			must(t, err)
			return k.ID, ed25519.NewKeyFromSeed(seed)
		}
	}
	t.Fatalf("the token is signed by %q, which is not stored", header.Kid)
	return "", nil
}

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	switch {
	case code == "" && err != nil:
		t.Errorf("%s failed: %v", what, err)
	case code != "" && !fault.Is(err, code):
		t.Errorf("%s gave %v, want %s", what, err, code)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newContext(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}
