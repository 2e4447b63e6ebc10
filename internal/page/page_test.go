package page

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
)

func ptr[T any](v T) *T { return &v }

func TestWindow_checks_what_a_client_asks_for(t *testing.T) {
	t.Parallel()
	cursor := Cursor{"BY_ID", "k", "id"}.String()
	tests := []struct {
		name string
		args Args
		code fault.Code // empty if fine
	}{
		{"nothing is a default page", Args{}, ""},
		{"zero is a page of nothing", Args{First: ptr(0)}, ""},
		{"the largest page", Args{Last: ptr(MaxSize)}, ""},
		{"a cursor of this order", Args{After: &cursor, Before: &cursor}, ""},
		{"one more than the largest page", Args{First: ptr(MaxSize + 1)}, fault.PageSizeInvalid},
		{"a huge page", Args{First: ptr(1_000_000_000)}, fault.PageSizeInvalid},
		{"a negative page", Args{Last: ptr(-1)}, fault.PageSizeInvalid},
		{"both directions", Args{First: ptr(1), Last: ptr(1)}, fault.PageSizeInvalid},
		{"a cursor of another order", Args{After: ptr(Cursor{"BY_NAME", "k", "id"}.String())}, fault.CursorInvalid},
		{"an empty cursor", Args{Before: ptr("")}, fault.CursorInvalid},
		{"a cursor that is none", Args{After: ptr("bm90IG91cnM")}, fault.CursorInvalid},
		{"a cursor in two lines", Args{After: ptr(cursor[:8] + "\n" + cursor[8:])}, fault.CursorInvalid},
		{"a cursor that is no UTF-8", Args{After: ptr(Cursor{"BY_ID", "\xff", "id"}.String())}, fault.CursorInvalid},
		{"the longest key", Args{After: ptr(Cursor{"BY_ID", strings.Repeat("&", MaxKey), "id"}.String())}, ""},
		{"a much longer key", Args{After: ptr(Cursor{"BY_ID", strings.Repeat("k", 2*MaxKey), "id"}.String())}, fault.CursorInvalid},
		{"a number of rows", Args{After: ptr(SkipCursor(MaxSkip))}, ""},
		{"more rows than may be skipped", Args{After: ptr(SkipCursor(MaxSkip + 1))}, fault.CursorInvalid},
		{"no rows to skip", Args{After: ptr(SkipCursor(0))}, fault.CursorInvalid},
		{"a number of rows in another form", Args{After: ptr(Cursor{Order: "SKIP", Key: "+7"}.String())}, fault.CursorInvalid},
		{"rows to skip of a page at the end", Args{Last: ptr(1), After: ptr(SkipCursor(1))}, fault.CursorInvalid},
		{"rows to skip as the end", Args{Before: ptr(SkipCursor(1))}, fault.CursorInvalid},
		{"a cursor with a NUL", Args{After: ptr(Cursor{"BY_ID", "\x00", "id"}.String())}, fault.CursorInvalid},
	}
	for _, tt := range tests {
		_, err := tt.args.Window("BY_ID")
		if tt.code == "" && err != nil || tt.code != "" && !fault.Is(err, tt.code) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.code)
		}
	}
}

func TestCut_tells_whether_there_is_more(t *testing.T) {
	t.Parallel()
	cursor := func(n int) Cursor { return Cursor{"O", strconv.Itoa(n), ""} }
	tests := []struct {
		name    string
		window  Window
		rows    []int
		items   []int
		hasNext bool
		hasPrev bool
		whole   bool
	}{
		{"a first page with more behind it", Window{Limit: 2}, []int{1, 2, 3}, []int{1, 2}, true, false, false},
		{"a last page after a cursor", Window{Limit: 2, After: &Cursor{}}, []int{4, 5}, []int{4, 5}, false, true, false},
		{"backwards from the end", Window{Limit: 2, Backward: true}, []int{5, 4, 3}, []int{4, 5}, false, true, false},
		{"backwards to the start", Window{Limit: 2, Backward: true, Before: &Cursor{}}, []int{1}, []int{1}, true, false, false},
		{"a page of nothing still knows of more", Window{Limit: 0}, []int{1}, []int{}, true, false, false},
		{"the whole list", Window{Limit: 2}, []int{1, 2}, []int{1, 2}, false, false, true},
		{"the whole list backwards", Window{Limit: 2, Backward: true}, []int{2, 1}, []int{1, 2}, false, false, true},
		{"a page before a cursor", Window{Limit: 2, Before: &Cursor{}}, []int{1}, []int{1}, false, false, false},
		{"a page behind a number of rows", Window{Limit: 2, Skip: 1}, []int{2}, []int{2}, false, true, false},
	}
	for _, tt := range tests {
		p := Cut(tt.window, tt.rows, cursor)
		if !slices.Equal(p.Items, tt.items) || p.HasNext != tt.hasNext || p.HasPrev != tt.hasPrev || p.Whole != tt.whole || len(p.Cursors) != len(p.Items) {
			t.Errorf("%s: got %+v", tt.name, p)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add(Cursor{"O", "2026-03-01T00:00:00.000000Z", "ord_1"}.String())
	f.Add("")
	f.Add("WyJPIiwiayIsImlkIl0")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor("O", s)
		if err == nil && c.String() != s {
			t.Errorf("ParseCursor(%q) = %+v, which is written %q", s, c, c.String())
		}
	})
}
