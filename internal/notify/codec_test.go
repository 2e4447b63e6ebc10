package notify

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/event"
)

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "0", "17", "17w", "w", "-1", "99999999999999999999", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h := decodeNotification(s)
		if h.Head < 0 || decodeNotification(encodeNotification(h)) != h {
			t.Errorf("decode(%q) = %+v, which is written %q", s, h, encodeNotification(h))
		}
	})
}

func TestDecode_of_what_it_does_not_know_is_a_reason_to_look(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "w", "-1", "99999999999999999999", "x17"} {
		if h := decodeNotification(s); h != (event.Notification{}) {
			t.Errorf("decode(%q) = %+v, want the zero notification", s, h)
		}
	}
}
