package session

import (
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
)

func TestPrincipalCache_keeps_principals_until_their_tokens_expire(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := at
	c := newPrincipalCache(8, func() time.Time { return now })
	p := &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}
	c.put("key", knownPrincipal{p, 0}, time.Time{})
	c.put("token", knownPrincipal{p, 0}, at.Add(5*time.Minute))
	c.put("refused since", knownPrincipal{p, 0}, time.Time{})
	c.invalidate("refused since")
	tests := []struct {
		after  time.Duration
		bearer string
		want   *auth.Principal
	}{
		{0, "key", p}, {0, "token", p}, {0, "refused since", nil}, {0, "never seen", nil},
		{5 * time.Minute, "token", nil}, {5 * time.Minute, "key", p}, {principalCacheTTL, "key", nil},
	}
	for _, tt := range tests {
		now = at.Add(tt.after)
		got, ok := c.get(tt.bearer)
		if ok != (tt.want != nil) || ok && got.Principal != tt.want {
			t.Errorf("after %v, of %q: %v %v, want %v", tt.after, tt.bearer, got, ok, tt.want)
		}
	}
	now = at
	for n := range 100 {
		c.put(string(rune('a'+n)), knownPrincipal{p, 0}, time.Time{})
	}
	if n := c.entries.Len(); n > 8 {
		t.Errorf("the cache holds %d principals, want 8 at most", n)
	}
}
