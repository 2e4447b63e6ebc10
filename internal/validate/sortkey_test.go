package validate_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/backplane-dev/backplane/internal/validate"
)

func TestSortKey_sorts_as_people_do(t *testing.T) {
	t.Parallel()
	want := []string{"apple", "Éclair", "Eis", "étui", "Jørn", "Łódź", "naïve", "Ñandú", "Zebra", "Ωmega"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, func(a, b string) int { return strings.Compare(validate.SortKey(a), validate.SortKey(b)) })
	if !slices.Equal(got, want) {
		t.Errorf("sorted by SortKey: %q, want %q", got, want)
	}
	for _, name := range want {
		if composed, decomposed := validate.SortKey(norm.NFC.String(name)), validate.SortKey(norm.NFD.String(name)); composed != decomposed {
			t.Errorf("%s sorts by %q composed and by %q decomposed", name, composed, decomposed)
		}
	}
}

func TestSortKey_is_bounded(t *testing.T) {
	t.Parallel()
	for _, name := range []string{strings.Repeat("\uFDFA", 200), strings.Repeat("😀", 200), strings.Repeat("a", 511) + "é", "\xff"} {
		if key := validate.SortKey(name); len(key) > validate.MaxSortKey || utf8.ValidString(name) && !utf8.ValidString(key) {
			t.Errorf("SortKey of %d bytes has %d, want at most %d of whole characters", len(name), len(key), validate.MaxSortKey)
		}
	}
}

func TestEscapedSurrogate_finds_halves(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`\u00e9`: false, `\ud83d\ude00`: false, `\uD83D\uDE00`: false, `\ud83d`: true, `\ude00`: true, `\ud83dx`: true, `\ud83d\n`: true, `\ud83d\u0041`: true,
		`\ud83d\ud83d`: true, `\n`: false, `\u{1f600}`: false, `\u12`: false, `\`: false,
	} {
		if n, half := validate.EscapedSurrogate(text, 0); half != want || n < 2 {
			t.Errorf("EscapedSurrogate(%s) = %d, %t, want %t", text, n, half, want)
		}
	}
}
