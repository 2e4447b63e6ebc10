package validate

import (
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
)

func TestLine_takes_one_line(t *testing.T) {
	t.Parallel()
	if got, err := Line("name", "  Zoë K.\t", 6); err != nil || got != "Zoë K." {
		t.Errorf("Line gave %q, %v, want the text without spaces around it", got, err)
	}
	for name, s := range map[string]string{
		"nothing": " ", "a newline": "a\nb", "a NUL": "a\x00", "bytes that are no UTF-8": "\xff", "one character too many": "äöüäöüä",
	} {
		if _, err := Line("name", s, 6); !fault.Is(err, fault.BadInput) || fault.From(err).Path[0] != "name" {
			t.Errorf("Line of %s gave %v, want BAD_INPUT at name", name, err)
		}
	}
}

func TestLine_takes_names_that_can_be_read(t *testing.T) {
	t.Parallel()
	if got, err := Line("name", "Cafe\u0301", 4); err != nil || got != "Caf\u00e9" {
		t.Errorf("Line gave %q, %v, want it composed", got, err)
	}
	for name, s := range map[string]string{
		"a Hebrew name": "\u05e9\u05dc\u05d5\u05dd", "an emoji of several characters": "\U0001F468\u200D\U0001F469", "an isolate inside": "a \u2067\u05d0\u2069 b", "a flag": "\U0001F1E9\U0001F1EA",
	} {
		if got, err := Line("name", s, 10); err != nil || got != s {
			t.Errorf("Line of %s gave %q, %v", name, got, err)
		}
	}
	for name, s := range map[string]string{
		"only a zero width space": "\u200B", "only a soft hyphen": "\u00AD", "only a Hangul filler": "\u3164", "only an accent": "\u0301", "only a blank of Braille": "\u2800",
		"only a variation selector": "\uFE0F", "an override at its start": "\u202Eabc", "a mark at its end": "abc\u200F", "an override that is left open": "a\u202Eb",
		"an isolate that is left open": "a\u2067b", "an end of what it did not open": "a\u202Cb",
	} {
		if _, err := Line("name", s, 10); !fault.Is(err, fault.BadInput) || fault.From(err).Path[0] != "name" {
			t.Errorf("Line of %s gave %v, want BAD_INPUT at name", name, err)
		}
	}
}

func TestText_takes_lines(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "a\n\tb\r\n"} {
		if got, err := Text("note", s, 10); err != nil || got != s {
			t.Errorf("Text(%q) = %q, %v", s, got, err)
		}
	}
	if _, err := Text("note", "\x1b[2J", 10); !fault.Is(err, fault.BadInput) {
		t.Errorf("Text with an escape gave %v, want BAD_INPUT", err)
	}
}

func TestLegacyID_is_no_relative_path(t *testing.T) {
	t.Parallel()
	for _, s := range []string{".", ".."} {
		if err := LegacyID(s); !fault.Is(err, fault.LegacyIDInvalid) {
			t.Errorf("LegacyID(%q) = %v, want LEGACY_ID_INVALID", s, err)
		}
	}
}

func TestLegacyID_has_one_spelling(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"0", "17", "A-17", "17a", "007x", strings.Repeat("9", 64)} {
		if err := LegacyID(s); err != nil {
			t.Errorf("LegacyID(%q) = %v", s, err)
		}
	}
	for _, s := range []string{"", "017", "00", "a b", "\x00", "é", strings.Repeat("9", 65), "usr_01j9zq4m8ye7v9k2t3w5x6y7z8"} {
		if err := LegacyID(s); !fault.Is(err, fault.LegacyIDInvalid) {
			t.Errorf("LegacyID(%q) = %v, want LEGACY_ID_INVALID", s, err)
		}
	}
}

func TestIfVersion_carries_the_object_as_it_is(t *testing.T) {
	t.Parallel()
	three := 3
	if err := IfVersion(t.Context(), &three, 3, nil); err != nil {
		t.Errorf("the expected version gave %v", err)
	}
	if err := IfVersion(t.Context(), nil, 3, nil); err != nil {
		t.Errorf("no expectation gave %v", err)
	}
	if err := IfVersion(t.Context(), &three, 4, "as it is"); !fault.Is(err, fault.VersionConflict) || fault.From(err).Current != "as it is" {
		t.Errorf("another version gave %v", err)
	}
}

func TestIfVersion_evaluates_the_condition_of_the_request(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		condition Condition
		stored    int
		holds     bool
	}{
		{Condition{}, 3, true},
		{Condition{OneOf: []int{2, 3}}, 3, true},
		{Condition{OneOf: []int{2, 3}}, 4, false},
		{Condition{OneOf: []int{}}, 4, false},
		{Condition{NoneOf: []int{2, 3}}, 3, false},
		{Condition{NoneOf: []int{2, 3}}, 4, true},
		{Condition{Absent: true}, 1, false},
	} {
		err := IfVersion(WithCondition(t.Context(), tt.condition), nil, tt.stored, "as it is")
		if tt.holds && err != nil || !tt.holds && (!fault.Is(err, fault.VersionConflict) || fault.From(err).Current != "as it is") {
			t.Errorf("%+v gives %v at version %d", tt.condition, err, tt.stored)
		}
	}
}
