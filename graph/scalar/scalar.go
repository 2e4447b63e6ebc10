// Package scalar marshals and unmarshals the scalars of the schema, strictly: a number is
// no String, a string is no Int, and text that a database cannot store is refused.
//
// Errors are faults, written for the client; they never name Go types.
package scalar

import (
	"encoding/json"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/executor/plan"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

// MarshalString writes a String.
func MarshalString(s string) graphql.Marshaler { return graphql.MarshalString(s) }

// AppendString appends a String as MarshalString writes it.
func AppendString(b []byte, s string) []byte { return plan.AppendString(b, s) }

// UnmarshalString reads a String: valid UTF-8 without the character U+0000.
func UnmarshalString(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", badInput("a string")
	}
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return "", fault.New(fault.BadInput, "A string must be valid UTF-8 without the character U+0000.")
	}
	return s, nil
}

// MarshalID writes an ID.
func MarshalID(s string) graphql.Marshaler { return graphql.MarshalString(s) }

// AppendID appends an ID as MarshalID writes it.
func AppendID(b []byte, s string) []byte { return plan.AppendString(b, s) }

// UnmarshalID reads an ID: a string or, as the specification asks, an integer.
func UnmarshalID(v any) (string, error) {
	if n, err := UnmarshalInt64(v); err == nil {
		return strconv.FormatInt(n, 10), nil
	}
	return UnmarshalString(v)
}

// MarshalInt writes an Int, which has 32 bits: a number beyond them becomes the largest or the
// smallest that has, since clients of typed languages refuse a whole response with another.
func MarshalInt(n int) graphql.Marshaler {
	return graphql.MarshalInt(max(math.MinInt32, min(n, math.MaxInt32)))
}

// AppendInt appends an Int as MarshalInt writes it.
func AppendInt(b []byte, n int) []byte {
	return strconv.AppendInt(b, int64(max(math.MinInt32, min(n, math.MaxInt32))), 10)
}

// UnmarshalInt reads an Int: a whole number that fits 32 bits.
func UnmarshalInt(v any) (int, error) {
	n, err := UnmarshalInt64(v)
	if err != nil || n < math.MinInt32 || n > math.MaxInt32 {
		return 0, badInput("a whole number of 32 bits")
	}
	return int(n), nil
}

// UnmarshalInt64 reads a whole number, however JSON or the document spelt it
// (1.0 and 1e3 are whole).
func UnmarshalInt64(v any) (int64, error) {
	switch n := v.(type) {
	case int:
		return int64(n), nil
	case int64:
		return n, nil
	case float64:
		if n == math.Trunc(n) && math.Abs(n) < 1<<53 {
			return int64(n), nil
		}
	case json.Number:
		if i, ok := validate.WholeNumber(string(n)); ok {
			return i, nil
		}
	}
	return 0, badInput("a whole number")
}

// MarshalBoolean writes a Boolean.
func MarshalBoolean(b bool) graphql.Marshaler { return graphql.MarshalBoolean(b) }

// AppendBoolean appends a Boolean as MarshalBoolean writes it.
func AppendBoolean(b []byte, v bool) []byte { return strconv.AppendBool(b, v) }

// UnmarshalBoolean reads a Boolean: true or false, no number and no string.
func UnmarshalBoolean(v any) (bool, error) {
	b, ok := v.(bool)
	if !ok {
		return false, badInput("true or false")
	}
	return b, nil
}

// dateTimeLayout is a DateTime as JSON.
const dateTimeLayout = `"2006-01-02T15:04:05.999999Z07:00"`

// MarshalDateTime writes a DateTime in UTC, to the microsecond.
func MarshalDateTime(t time.Time) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		_, _ = w.Write(AppendDateTime(nil, t))
	})
}

// AppendDateTime appends a DateTime as MarshalDateTime writes it.
func AppendDateTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, dateTimeLayout) }

// UnmarshalDateTime reads a DateTime: RFC 3339 with any offset, years 1 to 9999.
func UnmarshalDateTime(v any) (time.Time, error) {
	s, _ := v.(string)
	if t, ok := parseTime(s); ok && t.Year() >= 1 && t.Year() <= 9999 {
		return t.Truncate(time.Microsecond), nil
	}
	return time.Time{}, badInput("a time of RFC 3339, e.g. 2026-03-01T12:30:00Z")
}

// rfc3339 is the grammar of RFC 3339, section 5.6, whose letters may be small. The package time
// takes more: offsets of 24 hours and decimal commas.
var rfc3339 = regexp.MustCompile(`^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:)(\d\d)(\.\d{1,15})?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$`)

// parseTime reads a time of RFC 3339 and returns it in UTC. A leap second, the last of a day in
// UTC, is the first second of the next day, as clocks without leap seconds have it.
func parseTime(s string) (t time.Time, ok bool) {
	parts := rfc3339.FindStringSubmatch(strings.ToUpper(s))
	if parts == nil {
		return t, false
	}
	seconds, leap := parts[3], parts[3] == "60"
	if leap {
		seconds = "59"
	}
	t, err := time.Parse(time.RFC3339Nano, parts[1]+"T"+parts[2]+seconds+parts[4]+parts[5])
	t = t.UTC()
	if leap {
		if t.Hour() != 23 || t.Minute() != 59 {
			return t, false
		}
		t = t.Add(time.Second)
	}
	return t, err == nil
}

// MarshalDecimal writes a Decimal.
func MarshalDecimal(s string) graphql.Marshaler { return graphql.MarshalString(s) }

// AppendDecimal appends a Decimal as MarshalDecimal writes it.
func AppendDecimal(b []byte, s string) []byte { return plan.AppendString(b, s) }

// UnmarshalDecimal reads a Decimal: a string of digits with at most one point
// between them and at most one minus before them.
func UnmarshalDecimal(v any) (string, error) {
	s, _ := v.(string)
	whole, fraction, dot := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	if len(s) > 40 || !isDigits(whole) || dot && !isDigits(fraction) {
		return "", badInput(`a decimal number in a string, e.g. "12.90"`)
	}
	return s, nil
}

// MarshalCurrencyCode writes a CurrencyCode.
func MarshalCurrencyCode(s string) graphql.Marshaler { return graphql.MarshalString(s) }

// AppendCurrencyCode appends a CurrencyCode as MarshalCurrencyCode writes it.
func AppendCurrencyCode(b []byte, s string) []byte { return plan.AppendString(b, s) }

// UnmarshalCurrencyCode reads a CurrencyCode: three capitals. The domain
// checks that the currency exists.
func UnmarshalCurrencyCode(v any) (string, error) {
	s, _ := v.(string)
	notCapital := func(r rune) bool { return r < 'A' || r > 'Z' }
	if len(s) != 3 || strings.ContainsFunc(s, notCapital) {
		return "", badInput("a currency code of three capitals, e.g. EUR")
	}
	return s, nil
}

func isDigits(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

func badInput(want string) error {
	return fault.New(fault.BadInput, "This must be %s.", want)
}
