package event_test

import (
	"math"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

func TestParseCursor(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"the place before the first event", "0a1b2c3d4e5f.0", true},
		{"a place", "x.17", true},
		{"the last place there can be", "x.9223372036854775807", true},
		{"one beyond it", "x.9223372036854775808", false},
		{"a negative place", "x.-1", false},
		{"no place", "x.", false},
		{"no timeline", ".1", false},
		{"a sign that changes nothing", "x.+1", false},
		{"a zero that changes nothing", "x.01", false},
		{"capitals", "X.1", false},
		{"two points", "x.1.2", false},
		{"no text", "", false},
		{"a timeline that is too long", strings.Repeat("x", 33) + ".1", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := event.ParseCursor(tt.text)
			if (err == nil) != tt.ok || tt.ok && c.String() != tt.text || !tt.ok && !fault.Is(err, fault.CursorInvalid) {
				t.Errorf("ParseCursor(%q) = %v, %v, want ok %v", tt.text, c, err, tt.ok)
			}
		})
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"x.1", "0a1b2c3d4e5f.9223372036854775807", ".", "x.-0", "\x00.1", "x.１"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := event.ParseCursor(s)
		if err != nil {
			if !fault.Is(err, fault.CursorInvalid) || c != (event.Cursor{}) {
				t.Errorf("ParseCursor(%q) = %v, %v, want nothing and CURSOR_INVALID", s, c, err)
			}
			return
		}
		if c.String() != s || c.Position < 0 || c.Timeline == "" {
			t.Errorf("ParseCursor(%q) = %+v, which is written %q", s, c, c)
		}
	})
}

func FuzzCursor_String(f *testing.F) {
	f.Add("x", int64(0))
	f.Add("0a1b2c3d4e5f", int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, timeline string, p int64) {
		c := event.Cursor{Timeline: timeline, Position: event.Position(p)}
		if got, err := event.ParseCursor(c.String()); err == nil && got != c {
			t.Errorf("ParseCursor(%q) = %+v, want %+v", c, got, c)
		}
	})
}
