package sessiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

func createsKeys(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	old, expired := s.key(t, id, at.Add(-time.Minute)), s.key(t, id, at.Add(-time.Hour))
	k := &session.APIKey{ID: uid.NewAPIKey(at), UserID: id, Name: "new", Hash: []byte{1}, Version: 1, CreatedAt: at, UpdatedAt: at, ExpiresAt: at.Add(time.Hour)}
	err := s.Store.CreateKey(t.Context(), k, at, func(owner *session.Account, live int) error {
		if owner.UserID != id || !owner.Active || live != 1 {
			t.Errorf("allow got owner %+v with %d live keys, want ada with 1", owner, live)
		}
		return errStop
	})
	if !errors.Is(err, errStop) {
		t.Errorf("CreateKey = %v, want the function's error", err)
	}
	got, err := s.Store.KeysOf(t.Context(), id, 10)
	must(t, err)
	assertSame(t, "list of keys", got, []*session.APIKey{old, expired})
	got, err = s.Store.KeysOf(t.Context(), id, 1)
	must(t, err)
	assertSame(t, "short list of keys", got, []*session.APIKey{old})

	ended, err := s.Store.UpdateKey(t.Context(), claim.None, old.ID, func(k *session.APIKey) error {
		k.Revoke(at)
		return nil
	})
	must(t, err)
	found, err := s.Store.KeysByIDs(t.Context(), []uid.APIKey{old.ID, k.ID})
	must(t, err)
	if len(found) != 1 || ended.RevokedAt == nil {
		t.Errorf("found %d keys and %+v, want the old one, revoked", len(found), ended)
	}
	assertSame(t, "revoked key", found[old.ID], ended)
	if got := s.types(t, id); !slices.Equal(got, []event.Type{session.EventAPIKeyRevoked}) {
		t.Errorf("events = %v, want api_key.revoked", got)
	}
	_, err = s.Store.UpdateKey(t.Context(), claim.None, k.ID, func(*session.APIKey) error { return nil })
	wantCode(t, err, session.CodeAPIKeyNotFound)
	err = s.Store.CreateKey(t.Context(), &session.APIKey{ID: uid.NewAPIKey(at), UserID: uid.NewUser(at), Version: 1}, at, func(*session.Account, int) error { return nil })
	wantCode(t, err, fault.UserNotFound)
}

func countsKeys(t *testing.T, s Subject) {
	const limit = 3
	id := s.account(t, "ada")
	var refused atomic.Int32
	concurrently(t, 8, func(ctx context.Context, i int) error {
		k := &session.APIKey{
			ID: uid.NewAPIKey(at), UserID: id, Name: strconv.Itoa(i), Hash: []byte{1},
			Version: 1, CreatedAt: at, UpdatedAt: at, ExpiresAt: at.Add(time.Hour),
		}
		err := s.Store.CreateKey(ctx, k, at, func(_ *session.Account, live int) error {
			if live >= limit {
				return errStop
			}
			return nil
		})
		if errors.Is(err, errStop) {
			refused.Add(1)
			return nil
		}
		return err
	})
	got, err := s.Store.KeysOf(t.Context(), id, 10)
	must(t, err)
	if len(got) != limit || refused.Load() != 8-limit {
		t.Errorf("there are %d keys and %d refusals, want %d and %d", len(got), refused.Load(), limit, 8-limit)
	}
}

func touchesKeys(t *testing.T, s Subject) {
	id := s.account(t, "ada")
	k := s.key(t, id, at)
	for _, tt := range []struct{ used, want time.Duration }{
		{0, 0}, {30 * time.Second, 0}, {61 * time.Second, 61 * time.Second}, {10 * time.Second, 61 * time.Second},
	} {
		must(t, s.Store.TouchKeys(t.Context(), map[uid.APIKey]time.Time{k.ID: at.Add(tt.used), uid.NewAPIKey(at): at}))
		got, err := s.Store.KeysByIDs(t.Context(), []uid.APIKey{k.ID})
		must(t, err)
		want := *k
		used := at.Add(tt.want)
		want.LastUsedAt = &used
		assertSame(t, fmt.Sprintf("key used after %s", tt.used), got[k.ID], &want)
	}
	if evs := s.Events(t); len(evs) != 0 {
		t.Errorf("using a key recorded %d events, want none", len(evs))
	}
}

func agreesOnSigningKeys(t *testing.T, s Subject) {
	var made atomic.Int32
	concurrently(t, 10, func(ctx context.Context, i int) error {
		keys, err := s.Store.UpdateSigningKeys(ctx, func(keys []*token.SigningKey) (*token.SigningKey, []string, error) {
			if len(keys) > 0 {
				return nil, nil, nil
			}
			return &token.SigningKey{ID: fmt.Sprint("key", i), Sealed: []byte{1}, CreatedAt: at, SignsAt: at}, nil, nil
		})
		if err == nil && len(keys) == 1 && keys[0].ID == fmt.Sprint("key", i) {
			made.Add(1)
		}
		return err
	})
	keys, err := s.Store.SigningKeys(t.Context())
	must(t, err)
	if len(keys) != 1 || made.Load() != 1 {
		t.Errorf("there are %d keys and %d nodes made one, want 1 and 1", len(keys), made.Load())
	}
}

func rotatesSigningKeys(t *testing.T, s Subject) {
	add := func(id string, signs time.Time, drop ...string) []*token.SigningKey {
		t.Helper()
		keys, err := s.Store.UpdateSigningKeys(t.Context(), func([]*token.SigningKey) (*token.SigningKey, []string, error) {
			return &token.SigningKey{ID: id, Sealed: []byte{0, 255, 1}, CreatedAt: at, SignsAt: signs}, drop, nil
		})
		must(t, err)
		return keys
	}
	add("b", at)
	add("a", at)
	got := add("c", at.Add(-time.Minute), "b")
	stored, err := s.Store.SigningKeys(t.Context())
	must(t, err)
	assertSame(t, "list of signing keys", stored, got)
	if len(got) != 2 || got[0].ID != "c" || got[1].ID != "a" {
		t.Errorf("there are %d signing keys, want c, then a", len(got))
	}
	_, err = s.Store.UpdateSigningKeys(t.Context(), func([]*token.SigningKey) (*token.SigningKey, []string, error) {
		return nil, []string{"a"}, errStop
	})
	if !errors.Is(err, errStop) {
		t.Errorf("UpdateSigningKeys = %v, want the function's error", err)
	}
	if again, err := s.Store.SigningKeys(t.Context()); err != nil || len(again) != 2 {
		t.Errorf("after a failed change there are %d signing keys (%v), want 2", len(again), err)
	}
}

func keepsSecrets(t *testing.T, s Subject) {
	values := make([][]byte, 10)
	concurrently(t, len(values), func(ctx context.Context, i int) (err error) {
		values[i], err = s.Secrets.Secret(ctx, "name", []byte{0, 255, byte(i)})
		return err
	})
	first := values[0]
	for i, v := range values {
		if !bytes.Equal(v, first) {
			t.Errorf("caller %d got %v, caller 0 %v, want one value", i, v, first)
		}
	}
	for _, tt := range []struct{ old, next, want []byte }{
		{[]byte("other"), []byte("no"), first},
		{first, []byte("next"), []byte("next")},
		{first, []byte("late"), []byte("next")},
	} {
		got, err := s.Secrets.ReplaceSecret(t.Context(), "name", tt.old, tt.next)
		must(t, err)
		if !bytes.Equal(got, tt.want) {
			t.Errorf("ReplaceSecret(%q, %q) = %q, want %q", tt.old, tt.next, got, tt.want)
		}
		if stored, err := s.Secrets.StoredSecret(t.Context(), "name"); err != nil || !bytes.Equal(stored, tt.want) {
			t.Errorf("StoredSecret = %q, %v, want %q", stored, err, tt.want)
		}
	}
}
