// Package validate checks plain text for several domains: its length, its characters, the
// form of a service name and of a legacy id. It also has the optional fields of updates
// (Field) and the checks of an expected version (IfVersion, Condition).
package validate

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// MaxServiceName is the maximum length of a service name in characters.
const MaxServiceName = 63

// IsServiceName reports whether a service may have the name: lower-case letters
// and digits, with dashes, points and underscores between them. It stands in URLs,
// scopes and logs.
func IsServiceName(s string) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	}
	edge := func(b byte) bool { return b == '-' || b == '.' || b == '_' }
	return s != "" && len(s) <= MaxServiceName && !strings.ContainsFunc(s, odd) && !edge(s[0]) && !edge(s[len(s)-1])
}

// Field is an optional field of an update. The zero value leaves the stored value
// unchanged; Value is used only if Set.
type Field[T any] struct {
	Set   bool
	Value T
}

// Of returns a field that sets v.
func Of[T any](v T) Field[T] { return Field[T]{true, v} }

// ApplyTo sets dst to the field's value, if the field is set.
func (f Field[T]) ApplyTo(dst *T) {
	if f.Set {
		*dst = f.Value
	}
}

// Line checks one line of text, such as a name: valid UTF-8, no control characters, 1 to limit
// characters, of which one can be seen, and no formatting character that turns the direction of
// text around it. It returns the text in NFC without spaces around it.
func Line(path, s string, limit int) (string, error) {
	s = norm.NFC.String(strings.TrimSpace(s))
	if err := checkText(path, s, limit, unicode.IsControl); err != nil {
		return "", err
	}
	switch {
	case s == "":
		return "", fault.New(fault.BadInput, "%s must not be empty.", path).At(path)
	case !strings.ContainsFunc(s, isVisible):
		return "", fault.New(fault.BadInput, "%s must have a character that can be seen.", path).At(path)
	case turnsDirection(s):
		return "", fault.New(fault.BadInput, "%s must not change the direction of the text around it.", path).At(path)
	}
	return s, nil
}

// isVisible reports whether a character shows something by itself.
func isVisible(r rune) bool {
	const blankBraille, filler = '\u2800', '\uFFA0'
	return unicode.IsGraphic(r) && !unicode.IsSpace(r) && !unicode.IsMark(r) && r != blankBraille && r != filler &&
		!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// turnsDirection reports whether a text begins or ends with a character that sets the direction
// of text, or opens an override or an embedding that reaches beyond its end.
func turnsDirection(s string) bool {
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	if unicode.Is(unicode.Bidi_Control, first) || unicode.Is(unicode.Bidi_Control, last) {
		return true
	}
	open := 0
	for _, r := range s {
		switch r {
		case '\u202A', '\u202B', '\u202D', '\u202E', '\u2066', '\u2067', '\u2068':
			open++
		case '\u202C', '\u2069':
			if open--; open < 0 {
				return true
			}
		}
	}
	return open > 0
}

// Text checks text of several lines, which may be empty: valid UTF-8, no
// control characters but tab and newline, at most limit characters.
func Text(path, s string, limit int) (string, error) {
	return s, checkText(path, s, limit, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' })
}

func checkText(path, s string, limit int, refused func(rune) bool) error {
	switch {
	case !utf8.ValidString(s) || strings.ContainsFunc(s, refused):
		return fault.New(fault.BadInput, "%s holds characters that cannot be shown.", path).At(path)
	case utf8.RuneCountInString(s) > limit:
		return fault.New(fault.BadInput, "%s must be at most %d characters long.", path, limit).At(path)
	}
	return nil
}

// LegacyIDTaken is the error for a legacy id that another object of the type has.
func LegacyIDTaken() *fault.Error {
	return fault.New(fault.LegacyIDTaken, "This legacy id belongs to another object.").At("legacyId")
}

// LegacyID checks an object's id from a former system: 1 to 64 printable ASCII characters,
// in one canonical spelling (a whole number has no leading zeros or sign), not of the
// form of an id of this system, and no segment of a path that clients resolve.
func LegacyID(s string) error {
	number := s != ""
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return invalidLegacyID("it must be printable ASCII without spaces")
		}
		number = number && s[i] >= '0' && s[i] <= '9'
	}
	_, ours := uid.KindOf(s)
	switch {
	case s == "" || len(s) > 64:
		return invalidLegacyID("it must be 1 to 64 characters long")
	case number && len(s) > 1 && s[0] == '0':
		return invalidLegacyID("a number must not start with 0")
	case s == "." || s == "..":
		return invalidLegacyID("it must not be a relative path")
	case ours:
		return invalidLegacyID("it must not look like an id of this system")
	}
	return nil
}

// OptionalLegacyID checks a legacy id, if there is one.
func OptionalLegacyID(s *string) error {
	if s == nil {
		return nil
	}
	return LegacyID(*s)
}

func invalidLegacyID(reason string) error {
	return fault.New(fault.LegacyIDInvalid, "This legacy id is not usable: %s.", reason).At("legacyId")
}

// IfVersion checks the version that a caller expects, and the condition of ctx (WithCondition),
// against the stored one. A nil want expects nothing. On a mismatch the error carries the object as it is.
func IfVersion(ctx context.Context, want *int, stored int, current any) error {
	var e *fault.Error
	switch c, _ := ctx.Value(conditionKey{}).(Condition); {
	case want != nil && *want != stored:
		e = fault.New(fault.VersionConflict, "It has changed since: you expected version %d, it is now at %d.", *want, stored).At("ifVersion")
	case c.Absent || slices.Contains(c.NoneOf, stored):
		e = fault.New(fault.VersionConflict, "It is stored as If-None-Match says that it must not be.")
	case c.OneOf != nil && !slices.Contains(c.OneOf, stored):
		e = fault.New(fault.VersionConflict, "It is at none of the versions that If-Match names; it is now at %d.", stored)
	default:
		return nil
	}
	e.Current = current
	return e
}

// Condition is what the header of a request says of the version that is stored, where it says more than
// that it is one. The zero value holds for each.
type Condition struct {
	OneOf  []int // nil for any
	NoneOf []int
	Absent bool // nothing may be stored
}

type conditionKey struct{}

// WithCondition returns a context in which IfVersion also evaluates the condition. A change does that
// in its transaction, and not for a duplicate call, which has made the change already.
func WithCondition(ctx context.Context, c Condition) context.Context {
	return context.WithValue(ctx, conditionKey{}, c)
}
