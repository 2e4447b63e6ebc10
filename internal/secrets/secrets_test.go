package secrets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// memoryStore is a Store in memory.
type memoryStore struct {
	mu     sync.Mutex
	values map[string][]byte
}

func newMemoryStore() *memoryStore { return &memoryStore{values: map[string][]byte{}} }

func (m *memoryStore) Secret(_ context.Context, name string, fresh []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[name]; !ok {
		m.values[name] = fresh
	}
	return m.values[name], nil
}

func (m *memoryStore) StoredSecret(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name], nil
}

func (m *memoryStore) ReplaceSecret(_ context.Context, name string, old, next []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Equal(m.values[name], old) {
		m.values[name] = next
	}
	return m.values[name], nil
}

func mustParseKey(t testing.TB, c string) MasterKey {
	t.Helper()
	k, err := ParseMasterKey(strings.Repeat(c, minText))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustOpenSealer(t testing.TB, v Store, k MasterKey, former ...MasterKey) *Sealer {
	t.Helper()
	b, err := OpenSealer(t.Context(), v, k, former...)
	if err != nil {
		t.Fatalf("OpenBox failed: %v", err)
	}
	return b
}

func TestSealer_unseals_only_what_it_sealed_for_the_purpose(t *testing.T) {
	t.Parallel()
	b, other := newSealer(randomKey()), newSealer(randomKey())
	sealed := b.Seal("signing", []byte("seed"))
	if plain, err := b.Unseal("signing", sealed); err != nil || string(plain) != "seed" {
		t.Errorf("Open = %q, %v, want seed", plain, err)
	}
	if bytes.Equal(sealed, b.Seal("signing", []byte("seed"))) {
		t.Error("Seal gave the same bytes twice")
	}
	if _, err := b.Unseal("webhook", sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("Open for another purpose gave %v, want ErrSealed", err)
	}
	if _, err := other.Unseal("signing", sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("Open with another key gave %v, want ErrSealed", err)
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := b.Unseal("signing", damaged); !errors.Is(err, ErrSealed) {
			t.Errorf("Open of bytes damaged at %d gave %v, want ErrSealed", i, err)
		}
		if _, err := b.Unseal("signing", sealed[:i]); !errors.Is(err, ErrSealed) {
			t.Errorf("Open of %d bytes gave %v, want ErrSealed", i, err)
		}
	}
}

func TestSealer_derives_one_key_for_each_label(t *testing.T) {
	t.Parallel()
	b := newSealer([Size]byte{1})
	if b.Derive("a") == b.Derive("b") || b.Derive("a") == newSealer([Size]byte{2}).Derive("a") {
		t.Error("Derive gave one key for two")
	}
	if b.Derive("a") != newSealer([Size]byte{1}).Derive("a") {
		t.Error("Derive gave two keys for one")
	}
}

func TestSecrets_do_not_print(t *testing.T) {
	t.Parallel()
	k := mustParseKey(t, "k")
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprintf("%v %#v", newSealer(k.secret), newSealer(k.secret))} {
		if strings.Contains(s, fmt.Sprint(k.secret[0], k.secret[1])) || strings.Contains(s, fmt.Sprintf("%#x", k.secret[0])) {
			t.Errorf("a secret shows in %q", s)
		}
	}
}

func TestOpenSealer(t *testing.T) {
	t.Parallel()
	a, b, none := mustParseKey(t, "a"), mustParseKey(t, "b"), MasterKey{}
	tests := []struct {
		name          string
		first, second MasterKey
		former        []MasterKey
		want          error
	}{
		{"the same key opens it again", a, a, nil, nil},
		{"no key opens what no key protects", none, none, nil, nil},
		{"a key protects what lay bare", none, a, nil, nil},
		{"a new key takes over from a former one", a, b, []MasterKey{a}, nil},
		{"another key is refused", a, b, nil, ErrMasterKeyWrong},
		{"another key with a wrong former one is refused", a, b, []MasterKey{none, b}, ErrMasterKeyWrong},
		{"a missing key is refused", a, none, []MasterKey{a}, ErrMasterKeyMissing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newMemoryStore()
			sealed := mustOpenSealer(t, v, tt.first).Seal("x", []byte("kept"))
			got, err := OpenSealer(t.Context(), v, tt.second, tt.former...)
			if !errors.Is(err, tt.want) {
				t.Fatalf("OpenBox gave %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			if plain, err := got.Unseal("x", sealed); err != nil || string(plain) != "kept" {
				t.Errorf("Open = %q, %v", plain, err)
			}
			want := Unprotected
			if tt.second.IsSet() {
				want = Protected
			}
			if p, err := Inspect(t.Context(), v, tt.second); p != want || err != nil {
				t.Errorf("Inspect = %v, %v, want %v", p, err, want)
			}
			mustOpenSealer(t, v, tt.second) // the former key is not needed a second time
			if _, err := OpenSealer(t.Context(), v, tt.first); tt.first != tt.second && err == nil {
				t.Error("the former key still opens it")
			}
		})
	}
}

func TestOpenBox_nodesAgree(t *testing.T) {
	t.Parallel()
	v := newMemoryStore()
	var keys [10][Size]byte
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() { keys[i] = mustOpenSealer(t, v, mustParseKey(t, "a")).Derive("x") })
	}
	wg.Wait()
	for i := range keys {
		if keys[i] != keys[0] {
			t.Errorf("node %d has another key than node 0", i)
		}
	}
}

func TestParseKey_refuses_short_and_endless_text(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "too short", strings.Repeat("x", minText-1), strings.Repeat("x", maxText+1)} {
		if _, err := ParseMasterKey(s); err == nil {
			t.Errorf("ParseKey took %d characters", len(s))
		}
	}
}

func TestKeyFromFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "secret.key")
	var keys [8]MasterKey
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = MasterKeyFromFile(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range keys {
		if keys[i] != keys[0] || !keys[i].IsSet() {
			t.Errorf("process %d has another key than process 0", i)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v (%v), want 0600", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("the directory holds %v, want the key alone", left)
	}
}

func TestKeyFromFile_refuses_what_is_no_secret(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("x", minText)
	tests := []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"a file that others may read", good, 0o644, "chmod 600"},
		{"a file that its group may read", good, 0o640, "chmod 600"},
		{"a short key", "short", 0o600, "openssl rand"},
		{"an empty file", "", 0o600, "openssl rand"},
		{"a large file", strings.Repeat("x", 4096), 0o600, "not a key file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "secret.key")
			if err := os.WriteFile(path, []byte(tt.text), tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := MasterKeyFromFile(path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("KeyFromFile gave %v, want something with %q", err, tt.want)
			}
		})
	}
}

func FuzzBox_Open(f *testing.F) {
	b := newSealer([Size]byte{7})
	f.Add(b.Seal("x", []byte("y")))
	f.Add([]byte{sealedFormat})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if plain, err := b.Unseal("other", sealed); err == nil {
			t.Errorf("Unseal accepted bytes that were not sealed: %q", plain)
		}
	})
}

func TestInspect_and_JoinSealer_change_nothing(t *testing.T) {
	t.Parallel()
	a, b := mustParseKey(t, "a"), mustParseKey(t, "b")
	for name, tt := range map[string]struct {
		stored *MasterKey // of the data key; nil if there is none
		given  MasterKey
		former []MasterKey
		want   Protection
		opens  bool
	}{
		"no data key":                {nil, a, nil, NoDataKey, true},
		"the key that wraps it":      {&a, a, nil, Protected, true},
		"a former key that wraps it": {&a, b, []MasterKey{a}, Protected, true},
		"another key":                {&a, b, nil, OtherKey, false},
		"no key for a wrapped one":   {&a, MasterKey{}, nil, OtherKey, false},
		"a key for one not wrapped":  {&MasterKey{}, a, nil, Unprotected, true},
		"no key for one not wrapped": {&MasterKey{}, MasterKey{}, nil, Unprotected, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newMemoryStore()
			if tt.stored != nil {
				mustOpenSealer(t, store, *tt.stored)
			}
			before := bytes.Clone(store.values[dataKey])
			if got, err := Inspect(t.Context(), store, tt.given, tt.former...); got != tt.want || err != nil {
				t.Errorf("Inspect = %v, %v, want %v", got, err, tt.want)
			}
			if !bytes.Equal(store.values[dataKey], before) {
				t.Error("Inspect changed the data key")
			}
			if _, err := JoinSealer(t.Context(), store, tt.given, tt.former...); (err == nil) != tt.opens {
				t.Errorf("JoinSealer = %v, want an error: %v", err, !tt.opens)
			}
			if tt.stored != nil && !bytes.Equal(store.values[dataKey], before) {
				t.Error("JoinSealer changed the data key")
			}
		})
	}
}

func TestRewrap_replaces_the_master_key(t *testing.T) {
	t.Parallel()
	a, b, c := mustParseKey(t, "a"), mustParseKey(t, "b"), mustParseKey(t, "c")
	store := newMemoryStore()
	if err := Rewrap(t.Context(), store, b, a); err == nil {
		t.Error("Rewrap of an installation without a data key succeeded")
	}
	sealed := mustOpenSealer(t, store, a).Seal("signing", []byte("seed"))
	if err := Rewrap(t.Context(), store, b, c); !errors.Is(err, ErrMasterKeyWrong) {
		t.Errorf("Rewrap with a wrong old key = %v, want ErrMasterKeyWrong", err)
	}
	before := mustOpenSealer(t, store, a).Derive("x")
	if err := Rewrap(t.Context(), store, b, a); err != nil {
		t.Fatal(err)
	}
	if was, now := before, mustOpenSealer(t, store, b).Derive("x"); was != now {
		t.Error("Derive differs after Rewrap, so fingerprints of calls would")
	}
	if plain, err := mustOpenSealer(t, store, b).Unseal("signing", sealed); err != nil || string(plain) != "seed" {
		t.Errorf("Unseal after Rewrap = %q, %v, want what was sealed before", plain, err)
	}
	if _, err := OpenSealer(t.Context(), store, a); !errors.Is(err, ErrMasterKeyWrong) {
		t.Errorf("OpenSealer with the old key = %v, want ErrMasterKeyWrong", err)
	}
}
