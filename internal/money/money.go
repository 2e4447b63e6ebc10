// Package money owns amounts: whole numbers of a currency's minor unit, exact
// or refused, never rounded.
package money

import (
	"math"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Money is an amount in one currency. The zero value is no money at all.
type Money struct {
	Minor    int64  // in minor units of Currency: 1299 is EUR 12.99
	Currency string // ISO 4217, upper case
}

// Times returns m taken n times; ok is false if that does not fit.
func (m Money) Times(n int) (_ Money, ok bool) {
	if n != 0 && (m.Minor > math.MaxInt64/int64(n) || m.Minor < 0 || n < 0) {
		return Money{}, false
	}
	return Money{m.Minor * int64(n), m.Currency}, true
}

// Plus returns the sum; ok is false if it does not fit or the currencies differ.
func (m Money) Plus(o Money) (_ Money, ok bool) {
	if m.Currency != o.Currency || m.Minor > math.MaxInt64-o.Minor {
		return Money{}, false
	}
	return Money{m.Minor + o.Minor, m.Currency}, true
}

// Amount returns the amount in the currency's major unit with all its digits,
// e.g. "12.90".
func (m Money) Amount() string { return string(m.appendDigits(nil)) }

// AppendAmount appends Amount as JSON.
func (m Money) AppendAmount(b []byte) []byte {
	return append(m.appendDigits(append(b, '"')), '"')
}

func (m Money) appendDigits(b []byte) []byte {
	var buf [24]byte
	s, digits := strconv.AppendInt(buf[:0], m.Minor, 10), scale[m.Currency]
	if s[0] == '-' {
		b, s = append(b, '-'), s[1:]
	}
	if digits == 0 {
		return append(b, s...)
	}
	whole := max(0, len(s)-digits)
	if whole == 0 {
		b = append(b, '0')
	}
	b = append(append(b, s[:whole]...), '.')
	for range digits - (len(s) - whole) {
		b = append(b, '0')
	}
	return append(b, s[whole:]...)
}

// Max bounds every amount to what a JavaScript number still holds exactly.
const Max = 1<<53 - 1

// Parse reads a non-negative amount such as "12.9" of a currency. More digits
// than the currency has are refused, as is an unknown currency.
func Parse(amount, currency string) (Money, error) {
	if !Known(currency) {
		return Money{}, fault.New(fault.CurrencyUnknown, "%.20q is not a currency code of ISO 4217.", currency).At("currency")
	}
	whole, fraction, dot := strings.Cut(amount, ".")
	digits := scale[currency]
	if !allDigits(whole) || dot && !allDigits(fraction) || len(whole) > 16 {
		return Money{}, errInvalidAmount("An amount is digits with at most one point, e.g. \"12.90\", up to 16 digits before it.")
	}
	if len(fraction) > digits {
		return Money{}, errInvalidAmount("%s has %d digits after the point, not %d.", currency, digits, len(fraction))
	}
	minor, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", digits-len(fraction)), 10, 64)
	if err != nil || minor > Max {
		return Money{}, errInvalidAmount("The amount is too large.")
	}
	return Money{minor, currency}, nil
}

// Known reports whether the code is an active currency of ISO 4217.
func Known(code string) bool {
	_, ok := scale[code]
	return ok
}

func buildScale(byDigits map[int]string) map[string]int {
	m := make(map[string]int)
	for digits, codes := range byDigits {
		for code := range strings.FieldsSeq(codes) {
			m[code] = digits
		}
	}
	return m
}

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func errInvalidAmount(format string, args ...any) error {
	return fault.New(fault.AmountInvalid, format, args...).At("amount")
}
