package session_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
)

func TestService_HashPassword(t *testing.T) {
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
	f := newFixture(t, session.Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hash, err := f.HashPassword(t.Context(), tt.password)
			wantCode(t, "HashPassword", err, tt.code)
			if err == nil && (strings.Contains(hash, tt.password) || !strings.HasPrefix(hash, "$argon2id$v=19$m=")) {
				t.Errorf("hash = %q, want one of argon2id", hash)
			}
		})
	}
}

func TestService_HashPassword_costsWhatIsAdvised(t *testing.T) {
	t.Parallel()
	s, err := session.NewService(sessiontest.NewMemory(), openBox(t, sessiontest.NewMemory()), newClock().now, nil, session.Config{})
	must(t, err)
	hash, err := s.HashPassword(t.Context(), password)
	must(t, err)
	again, err := s.HashPassword(t.Context(), password)
	must(t, err)
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") || hash == again {
		t.Errorf("hashes = %q and %q, want two of 19 MiB and two passes", hash, again)
	}
}

func TestPasswordsTypedDifferentlyAreOne(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	hash, err := f.HashPassword(t.Context(), "caf\u00e9 au lait\u00a0bleu")
	must(t, err)
	f.store.AddAccount(t, sessiontest.NewAccount{Username: "zoe", Credential: hash})
	_, err = f.SignIn(from(t, "192.0.2.1"), "zoe", "cafe\u0301 au lait bleu")
	wantCode(t, "SignIn", err, "")
	_, err = f.SignIn(from(t, "192.0.2.1"), "zoe", "CAF\u00c9 AU LAIT BLEU")
	wantCode(t, "SignIn in other case", err, fault.CredentialsWrong)
}

func TestHashing_isBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, session.Config{Hashers: 2, HashQueue: 3})
		release := make(chan struct{})
		var mu sync.Mutex
		working, most := 0, 0
		f.OnHash(func() {
			mu.Lock()
			working++
			most = max(most, working)
			mu.Unlock()
			<-release
			mu.Lock()
			working--
			mu.Unlock()
		})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := f.HashPassword(t.Context(), password); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // two hash, three wait
		_, err := f.HashPassword(t.Context(), password)
		wantCode(t, "the sixth", err, fault.ServerBusy)
		if e := fault.From(err); e.Kind != fault.Unavailable || e.RetryAfter <= 0 {
			t.Errorf("a full queue gave %+v, want UNAVAILABLE with a time to wait", e)
		}
		close(release)
		wg.Wait()
		if most != 2 {
			t.Errorf("%d hashes at a time, want 2", most)
		}
	})
}

func TestHashing_waitsNoLongerThanItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, session.Config{Hashers: 1, HashQueue: 1})
		release, calls := make(chan struct{}), 0
		f.OnHash(func() {
			calls++
			<-release
		})
		done := make(chan error, 2)
		hash := func(ctx context.Context) {
			_, err := f.HashPassword(ctx, password)
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
		go hash(t.Context()) // has its place in the queue
		synctest.Wait()
		close(release)
		must(t, errors.Join(<-done, <-done))
		if calls != 2 {
			t.Errorf("%d hashes, want 2: nobody waits for the third", calls)
		}
	})
}

func TestNewPassword_isLongAndRandom(t *testing.T) {
	t.Parallel()
	a, b := session.NewPassword(), session.NewPassword()
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
		if again, ok := session.ParseHash(s); ok && again != s {
			t.Errorf("%q reads as %q", s, again)
		}
	})
}
