package password

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/fault"
)

const password = "correct horse battery staple"

// cheap makes hashes that cost next to nothing.
var cheap = Config{Cost: Cost{8, 1, 1}}

// hasherWith returns a cheap Hasher that calls fn before each hash.
func hasherWith(concurrency, queue int, fn func()) *Hasher {
	return NewHasher(Config{Concurrency: concurrency, Queue: queue, Cost: cheap.Cost, DeriveKey: func(text, salt []byte, c Cost) []byte {
		fn()
		return Argon2id(text, salt, c)
	}})
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

func TestHasher_Hash_refuses_what_is_no_password(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, password string
		code           fault.Code
	}{
		{"ten characters are enough", "0123456789", ""},
		{"nine are not", "012345678", fault.PasswordInvalid},
		{"ten characters count, not bytes", strings.Repeat("é", 9), fault.PasswordInvalid},
		{"characters count as composed", strings.Repeat("e\u0301", 9), fault.PasswordInvalid},
		{"spaces count", "a b c d e f", ""},
		{"1024 bytes are taken", strings.Repeat("x", 1024), ""},
		{"more are not", strings.Repeat("x", 1025), fault.PasswordInvalid},
		{"nothing is not", "", fault.PasswordInvalid},
		{"control characters are not", "0123456789\x00", fault.PasswordInvalid},
		{"broken UTF-8 is not", "0123456789\xff", fault.PasswordInvalid},
	}
	h := NewHasher(cheap)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hash, err := h.Hash(t.Context(), "ada", tt.password)
			wantCode(t, "Hash", err, tt.code)
			if err == nil && (strings.Contains(hash, tt.password) || !strings.HasPrefix(hash, "$argon2id$v=19$m=")) {
				t.Errorf("hash = %q, want one of argon2id", hash)
			}
		})
	}
}

func TestHasher_Hash_costs_what_OWASP_advises(t *testing.T) {
	t.Parallel()
	h := NewHasher(Config{})
	first, err := h.Hash(t.Context(), "ada", password)
	must(t, err)
	second, err := h.Hash(t.Context(), "ada", password)
	must(t, err)
	if !strings.HasPrefix(first, "$argon2id$v=19$m=19456,t=2,p=1$") || first == second {
		t.Errorf("hashes = %q and %q, want two of 19 MiB and two passes", first, second)
	}
}

func TestHasher_bounds_how_many_hash_and_wait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var mu sync.Mutex
		running, most := 0, 0
		h := hasherWith(2, 3, func() {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-release
			mu.Lock()
			running--
			mu.Unlock()
		})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := h.Hash(t.Context(), "ada", password); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // two hash, three wait
		_, err := h.Hash(t.Context(), "ada", password)
		wantCode(t, "the sixth", err, fault.ServerBusy)
		if e := fault.From(err); e.Kind() != fault.KindUnavailable || e.RetryAfter <= 0 {
			t.Errorf("a full queue gave %+v, want UNAVAILABLE with a time to wait", e)
		}
		close(release)
		wg.Wait()
		if most != 2 {
			t.Errorf("%d hashes at a time, want 2", most)
		}
	})
}

func TestHasher_stops_waiting_when_its_caller_leaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release, calls := make(chan struct{}), 0
		h := hasherWith(1, 1, func() {
			calls++
			<-release
		})
		done := make(chan error, 2)
		hash := func(ctx context.Context) {
			_, err := h.Hash(ctx, "ada", password)
			done <- err
		}
		go hash(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		go hash(ctx)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the caller that left got %v, want context.Canceled", err)
		}
		go hash(t.Context()) // takes the slot in the queue that is free again
		synctest.Wait()
		close(release)
		must(t, errors.Join(<-done, <-done))
		if calls != 2 {
			t.Errorf("%d hashes, want 2: the caller of the third has left", calls)
		}
	})
}

func TestGenerate_is_long_and_random(t *testing.T) {
	t.Parallel()
	a, b := Generate(), Generate()
	if a == b || len(a) != 23 || strings.ToLower(a) != a {
		t.Errorf("passwords = %q, %q, want two of 23 lower case characters", a, b)
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=99999999,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2i$v=19$m=8,t=0,p=1$$")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if h, ok := parseHash(s); ok && h.String() != s {
			t.Errorf("%q reads as %q", s, h)
		}
	})
}
