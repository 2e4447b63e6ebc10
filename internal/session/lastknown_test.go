package session

import (
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
)

func TestLastKnown(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := at
	l := newLastKnown(8, func() time.Time { return now })
	p := &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}
	l.note("key", p, time.Time{})
	l.note("token", p, at.Add(5*time.Minute))
	l.note("refused since", p, time.Time{})
	l.forget("refused since")
	tests := []struct {
		after  time.Duration
		bearer string
		want   *auth.Principal
	}{
		{0, "key", p}, {0, "token", p}, {0, "refused since", nil}, {0, "never seen", nil},
		{5 * time.Minute, "token", nil}, {5 * time.Minute, "key", p}, {lastKnownLife, "key", nil},
	}
	for _, tt := range tests {
		now = at.Add(tt.after)
		if got := l.get(tt.bearer); got != tt.want {
			t.Errorf("after %v, of %q: %v, want %v", tt.after, tt.bearer, got, tt.want)
		}
	}
	now = at
	for n := range 100 {
		l.note(string(rune('a'+n)), p, time.Time{})
	}
	if len(l.known) > 8 {
		t.Errorf("it remembers %d, want 8 at most", len(l.known))
	}
}
