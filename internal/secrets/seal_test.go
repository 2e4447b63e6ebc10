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

// memory is a Vault in memory.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

func newMemory() *memory { return &memory{values: map[string][]byte{}} }

func (m *memory) Secret(_ context.Context, name string, fresh []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[name]; !ok {
		m.values[name] = fresh
	}
	return m.values[name], nil
}

func (m *memory) ReplaceSecret(_ context.Context, name string, old, next []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if bytes.Equal(m.values[name], old) {
		m.values[name] = next
	}
	return m.values[name], nil
}

func key(t testing.TB, c string) Key {
	t.Helper()
	k, err := ParseKey(strings.Repeat(c, minText))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func box(t testing.TB, v Vault, k Key, former ...Key) *Box {
	t.Helper()
	b, err := OpenBox(t.Context(), v, k, former...)
	if err != nil {
		t.Fatalf("OpenBox failed: %v", err)
	}
	return b
}

func TestBox_opensOnlyWhatItSealedForThePurpose(t *testing.T) {
	t.Parallel()
	b, other := newBox(random(), true), newBox(random(), true)
	sealed := b.Seal("signing", []byte("seed"))
	if plain, err := b.Open("signing", sealed); err != nil || string(plain) != "seed" {
		t.Errorf("Open = %q, %v, want seed", plain, err)
	}
	if bytes.Equal(sealed, b.Seal("signing", []byte("seed"))) {
		t.Error("Seal gave the same bytes twice")
	}
	if _, err := b.Open("webhook", sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("Open for another purpose gave %v, want ErrSealed", err)
	}
	if _, err := other.Open("signing", sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("Open with another key gave %v, want ErrSealed", err)
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := b.Open("signing", damaged); !errors.Is(err, ErrSealed) {
			t.Errorf("Open of bytes damaged at %d gave %v, want ErrSealed", i, err)
		}
		if _, err := b.Open("signing", sealed[:i]); !errors.Is(err, ErrSealed) {
			t.Errorf("Open of %d bytes gave %v, want ErrSealed", i, err)
		}
	}
}

func TestBox_derivesOneKeyForEachLabel(t *testing.T) {
	t.Parallel()
	b := newBox([Size]byte{1}, true)
	if b.Derive("a") == b.Derive("b") || b.Derive("a") == newBox([Size]byte{2}, true).Derive("a") {
		t.Error("Derive gave one key for two")
	}
	if b.Derive("a") != newBox([Size]byte{1}, false).Derive("a") {
		t.Error("Derive gave two keys for one")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	k := key(t, "k")
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprintf("%v %#v", newBox(k.secret, true), newBox(k.secret, true))} {
		if strings.Contains(s, fmt.Sprint(k.secret[0], k.secret[1])) || strings.Contains(s, fmt.Sprintf("%#x", k.secret[0])) {
			t.Errorf("a secret shows in %q", s)
		}
	}
}

func TestOpenBox(t *testing.T) {
	t.Parallel()
	a, b, none := key(t, "a"), key(t, "b"), Key{}
	tests := []struct {
		name          string
		first, second Key
		former        []Key
		want          error
	}{
		{"the same key opens it again", a, a, nil, nil},
		{"no key opens what no key protects", none, none, nil, nil},
		{"a key protects what lay bare", none, a, nil, nil},
		{"a new key takes over from a former one", a, b, []Key{a}, nil},
		{"another key is refused", a, b, nil, ErrKeyWrong},
		{"another key with a wrong former one is refused", a, b, []Key{none, b}, ErrKeyWrong},
		{"a missing key is refused", a, none, []Key{a}, ErrKeyMissing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newMemory()
			sealed := box(t, v, tt.first).Seal("x", []byte("kept"))
			got, err := OpenBox(t.Context(), v, tt.second, tt.former...)
			if !errors.Is(err, tt.want) {
				t.Fatalf("OpenBox gave %v, want %v", err, tt.want)
			}
			if err != nil {
				return
			}
			if plain, err := got.Open("x", sealed); err != nil || string(plain) != "kept" || got.Protected() != tt.second.IsSet() {
				t.Errorf("Open = %q, %v, protected %v", plain, err, got.Protected())
			}
			box(t, v, tt.second) // the former key is not needed a second time
			if _, err := OpenBox(t.Context(), v, tt.first); tt.first != tt.second && err == nil {
				t.Error("the former key still opens it")
			}
		})
	}
}

func TestOpenBox_nodesAgree(t *testing.T) {
	t.Parallel()
	v := newMemory()
	var keys [10][Size]byte
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() { keys[i] = box(t, v, key(t, "a")).Derive("x") })
	}
	wg.Wait()
	for i := range keys {
		if keys[i] != keys[0] {
			t.Errorf("node %d has another key than node 0", i)
		}
	}
}

func TestParseKey_refusesShortAndEndlessText(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "too short", strings.Repeat("x", minText-1), strings.Repeat("x", maxText+1)} {
		if _, err := ParseKey(s); err == nil {
			t.Errorf("ParseKey took %d characters", len(s))
		}
	}
}

func TestKeyFromFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "secret.key")
	var keys [8]Key
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = KeyFromFile(path); err != nil {
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

func TestKeyFromFile_refusesWhatIsNoSecret(t *testing.T) {
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
			if _, err := KeyFromFile(path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("KeyFromFile gave %v, want something with %q", err, tt.want)
			}
		})
	}
}

func FuzzBox_Open(f *testing.F) {
	b := newBox([Size]byte{7}, true)
	f.Add(b.Seal("x", []byte("y")))
	f.Add([]byte{format})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if plain, err := b.Open("other", sealed); err == nil {
			t.Errorf("Open took bytes that nobody sealed: %q", plain)
		}
	})
}
