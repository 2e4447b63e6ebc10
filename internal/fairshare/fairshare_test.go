package fairshare_test

import (
	"context"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fairshare"
)

func TestShares_last_as_long_as_they_are_used(t *testing.T) {
	t.Parallel()
	s := fairshare.New()
	first, second, other := s.Join("a", 1), s.Join("a", 1), s.Join("b", 1)
	if first != second || first == other || s.Len() != 2 {
		t.Errorf("two uses have the same share: %v; another owner has it: %v; %d shares, want 2", first == second, first == other, s.Len())
	}
	if !first.TryAcquire(1) || second.TryAcquire(1) || !other.TryAcquire(1) {
		t.Error("an owner acquires more than its share, or is refused for what another owner holds")
	}
	s.Leave(other)
	s.Leave(first)
	if s.Len() != 1 {
		t.Errorf("%d shares are left, want that which is still used", s.Len())
	}
	s.Leave(second)
	if s.Len() != 0 {
		t.Errorf("%d shares are left, want none", s.Len())
	}
}

func TestCaller(t *testing.T) {
	t.Parallel()
	client := auth.WithClient(t.Context(), auth.Client{Address: "2001:db8::1:2"})
	user := auth.With(client, &auth.Principal{UserID: "usr_1"})
	for name, tt := range map[string]struct {
		ctx  context.Context
		want string
	}{
		"a user":                          {user, "user usr_1"},
		"an anonymous caller":             {client, "anonymous 2001:db8::/64"},
		"the server":                      {t.Context(), ""},
		"the server for a caller":         {auth.With(client, &auth.Principal{}), ""},
		"work for several callers":        {fairshare.WithoutCaller(user), ""},
		"a user whose address is unknown": {auth.With(t.Context(), &auth.Principal{UserID: "usr_1"}), "user usr_1"},
	} {
		if got := fairshare.Caller(tt.ctx); got != tt.want {
			t.Errorf("Caller of %s = %q, want %q", name, got, tt.want)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	ctx := auth.With(auth.WithClient(b.Context(), auth.Client{Address: "192.0.2.1"}), &auth.Principal{UserID: "usr_1"})
	s := fairshare.New()
	for b.Loop() {
		share := s.Join(fairshare.Caller(ctx), 5)
		if err := share.Acquire(ctx, 1); err != nil {
			b.Fatal(err)
		}
		share.Release(1)
		s.Leave(share)
	}
}
