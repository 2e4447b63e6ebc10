package session_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
	"github.com/backplane-dev/backplane/internal/session/token"
)

// keyIDs returns the ids in the key set that a service publishes.
func keyIDs(t testing.TB, s *session.Service) []string {
	t.Helper()
	var set struct {
		Keys []struct {
			Kid string `json:"kid"`
			Kty string `json:"kty"`
			Crv string `json:"crv"`
			Alg string `json:"alg"`
			Use string `json:"use"`
			X   string `json:"x"`
			D   string `json:"d"` // would be the private key
		} `json:"keys"`
	}
	must(t, json.Unmarshal(s.JWKS(), &set))
	var ids []string
	for _, k := range set.Keys {
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || len(x) != ed25519.PublicKeySize || k.Kty != "OKP" || k.Crv != "Ed25519" || k.Alg != "EdDSA" || k.Use != "sig" || k.D != "" {
			t.Errorf("published key = %+v, want a public Ed25519 key to verify with", k)
		}
		ids = append(ids, k.Kid)
	}
	return ids
}

func TestSigningKeys_of_nodes_that_start_at_once_are_the_same(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	nodes := make([]*session.Service, 10)
	var wg sync.WaitGroup
	for i := range nodes {
		nodes[i] = f.node(t, session.Config{})
		wg.Go(func() {
			if err := nodes[i].Prepare(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tokens, _ := f.signIn(t, "ada")
	for i, n := range nodes {
		if ids := keyIDs(t, n); len(ids) != 1 || ids[0] != keyIDs(t, nodes[0])[0] {
			t.Errorf("node %d publishes %v, want the one key", i, ids)
		}
		_, err := n.Authenticate(t.Context(), tokens.AccessToken)
		wantCode(t, "Authenticate on another node", err, "")
	}
	if evs := f.store.Events(); len(evs) != 0 {
		t.Errorf("the first key recorded %v, want nothing: nothing was rotated", evs)
	}
}

// keyRaceStore is a store whose keys another node makes between the read and the
// update.
type keyRaceStore struct{ *sessiontest.Memory }

func (keyRaceStore) SigningKeys(context.Context) ([]*token.SigningKey, error) { return nil, nil }

func TestSigningKeys_of_the_first_node_are_used_by_the_second(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	must(t, f.Prepare(t.Context()))
	second, err := session.NewService(keyRaceStore{f.store}, f.sealer, f.clock.now, slog.New(slog.DiscardHandler), session.Config{})
	must(t, err)
	must(t, second.Prepare(t.Context()))
	if first, second := keyIDs(t, f.Service), keyIDs(t, second); len(second) != 1 || second[0] != first[0] {
		t.Errorf("the second node knows %v, want the key of the first, %v", second, first)
	}
}

func TestService_JWKS_is_empty_before_the_start(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	if ids := keyIDs(t, f.Service); len(ids) != 0 {
		t.Errorf("a service that was not prepared publishes %v", ids)
	}
}

func TestService_RotateSigningKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	idle := f.node(t, session.Config{}) // a node that has not read the new key yet
	must(t, idle.Prepare(t.Context()))
	old, _ := f.signIn(t, "ada")
	first, _ := f.signer(t)

	next, err := f.RotateSigningKey(t.Context())
	must(t, err)
	if again, err := f.RotateSigningKey(t.Context()); err != nil || again.ID != next.ID {
		t.Errorf("a second rotation gave %v, %v, want the key that waits", again, err)
	}
	if ids := keyIDs(t, f.Service); len(ids) != 2 {
		t.Errorf("published keys = %v, want both at once", ids)
	}
	if signer, _ := f.signer(t); signer != first {
		t.Error("the new key signs before it was published for two intervals")
	}
	f.clock.add(2 * time.Minute)
	if signer, _ := f.signer(t); signer != next.ID {
		t.Error("the new key does not sign after two intervals")
	}
	fresh, _ := f.signIn(t, "ada")
	for _, tokens := range []*session.Tokens{old, fresh} {
		_, err := idle.Authenticate(t.Context(), tokens.AccessToken)
		wantCode(t, "Authenticate on a node that has not read the new key", err, "")
	}

	f.clock.add(6 * time.Minute) // a node that read it an interval late has signed its last token with the old key, and that has expired
	must(t, f.Prepare(t.Context()))
	if ids := keyIDs(t, f.Service); len(ids) != 1 || ids[0] != next.ID {
		t.Errorf("published keys = %v, want %s alone", ids, next.ID)
	}
	evs := f.store.Events()
	if len(evs) != 1 || evs[0].Type != token.EventSigningKeyRotated || evs[0].SubjectID != next.ID || strings.Contains(string(evs[0].Data), "eal") {
		t.Errorf("events = %+v, want one signing_key.rotated without the key", evs)
	}
	third, err := f.RotateSigningKey(t.Context())
	must(t, err)
	if stored, err := f.store.SigningKeys(t.Context()); err != nil || len(stored) != 2 || stored[0].ID != next.ID || stored[1].ID != third.ID {
		t.Errorf("stored keys = %v, %v, want the spent one gone", stored, err)
	}
}

// TestSigningKeys_sign_once_every_verifier_knows_them rotates the key while another node reads the keys
// once an interval, and a verifier reads that node's key set as seldom as max-age allows.
func TestSigningKeys_sign_once_every_verifier_knows_them(t *testing.T) {
	t.Parallel()
	const interval, step = time.Minute, 10 * time.Second
	for nodeOffset := time.Duration(0); nodeOffset < interval; nodeOffset += step {
		for verifierOffset := time.Duration(0); verifierOffset < interval; verifierOffset += step {
			f := newFixture(t, session.Config{})
			other := f.node(t, session.Config{})
			must(t, other.Prepare(t.Context()))
			must(t, f.Prepare(t.Context()))
			_, err := f.RotateSigningKey(t.Context())
			must(t, err)
			known := keyIDs(t, other) // by the verifier
			for passed := time.Duration(0); passed < 5*interval; passed += step {
				if passed%interval == verifierOffset { // before the node reads the keys: the later, the worse
					known = keyIDs(t, other)
				}
				if passed%interval == nodeOffset {
					must(t, other.Prepare(t.Context()))
				}
				if signer, _ := f.signer(t); !slices.Contains(known, signer) {
					t.Fatalf("after %s a key signs that a verifier does not know which reads the key set at %s of each minute, of a node that reads it at %s", passed, verifierOffset, nodeOffset)
				}
				f.clock.add(step)
			}
		}
	}
}

func TestCredentials_of_a_clock_that_was_ahead_are_void(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	must(t, f.Prepare(t.Context()))
	const ahead = 40 * 24 * time.Hour
	f.clock.add(ahead)
	tokens, _ := f.signIn(t, "ada")
	late, err := f.RotateSigningKey(t.Context())
	must(t, err)
	f.clock.add(-ahead)
	_, err = f.node(t, session.Config{}).Authenticate(t.Context(), tokens.AccessToken)
	wantCode(t, "Authenticate by a token of the future", err, fault.Unauthenticated)
	next, err := f.RotateSigningKey(t.Context())
	must(t, err)
	f.clock.add(2 * time.Minute)
	if signer, _ := f.signer(t); next.ID == late.ID || signer != next.ID {
		t.Errorf("%s signs, want the key %s that was made after the one of the future, %s", signer, next.ID, late.ID)
	}
}

func TestSigningKeys_verify_old_tokens_until_they_expire(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	must(t, f.Prepare(t.Context()))
	_, err := f.RotateSigningKey(t.Context())
	must(t, err)
	f.clock.add(2*time.Minute - time.Second)
	tokens, _ := f.signIn(t, "ada") // signed by the old key in its last second
	for range 29 {
		f.clock.add(10 * time.Second)
		f.ClearCaches()
		must(t, f.Prepare(t.Context()))
		f.as(t, tokens.AccessToken)
	}
}

func TestSigningKeys_are_not_read_again_for_each_unknown_kid(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	elsewhere := newFixture(t, session.Config{})
	foreign, _ := elsewhere.signIn(t, "ada")
	must(t, f.Prepare(t.Context()))
	before := f.store.Calls()
	for range 100 {
		_, err := f.Authenticate(t.Context(), foreign.AccessToken)
		wantCode(t, "Authenticate", err, fault.Unauthenticated)
	}
	f.clock.add(time.Second)
	for range 100 {
		_, err := f.Authenticate(t.Context(), foreign.AccessToken)
		wantCode(t, "Authenticate", err, fault.Unauthenticated)
	}
	if n := f.store.Calls() - before; n != 2 {
		t.Errorf("200 tokens of an unknown key took %d calls of the store in a second, want 2", n)
	}
}

// TestSigningKeys_of_a_revocation_elsewhere_are_known_at_once has a node read the keys just before another
// revokes the one that signs.
func TestSigningKeys_of_a_revocation_elsewhere_are_known_at_once(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	must(t, f.Prepare(t.Context()))
	other := f.node(t, session.Config{})
	must(t, other.Prepare(t.Context()))
	signer, _ := f.signer(t)
	_, err := f.RevokeSigningKey(t.Context(), signer)
	must(t, err)
	tokens, _ := f.signIn(t, "ada")
	_, err = other.Authenticate(t.Context(), tokens.AccessToken)
	must(t, err)
}

func TestService_Prepare_refuses_keys_that_another_data_key_sealed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	must(t, f.Prepare(t.Context()))
	var other secrets.Store = newFixture(t, session.Config{}).store
	s, err := session.NewService(f.store, openSealer(t, other), f.clock.now, slog.New(slog.DiscardHandler), session.Config{})
	must(t, err)
	if err := s.Prepare(t.Context()); err == nil || !strings.Contains(err.Error(), "open signing key") {
		t.Errorf("Prepare = %v, want it to say that a key does not open", err)
	}
}
