package validate

import (
	"strconv"
	"unicode/utf16"
)

// EscapedSurrogate reads the escape that begins at the backslash s[i], of a string of JSON or GraphQL.
// It returns its length in bytes, of a pair of surrogates that of both, and whether it names half of
// such a pair, which is no character: decoders replace it, and what they return is not what was
// sent.
func EscapedSurrogate[T string | []byte](s T, i int) (length int, half bool) {
	first, ok := escapedUnit(s, i)
	switch {
	case !ok:
		return 2, false
	case !utf16.IsSurrogate(first):
		return 6, false
	}
	if second, ok := escapedUnit(s, i+6); ok && utf16.DecodeRune(first, second) != '\uFFFD' {
		return 12, false
	}
	return 6, true
}

// escapedUnit returns the code unit of an escape such as \u00e9; ok is false for another escape.
func escapedUnit[T string | []byte](s T, i int) (r rune, ok bool) {
	if len(s) < i+6 || s[i] != '\\' || s[i+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[i+2:i+6]), 16, 16)
	return rune(n), err == nil
}
