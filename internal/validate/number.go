package validate

import (
	"errors"
	"strconv"
	"strings"
)

// maxDigits is the length of the longest whole number of 64 bits.
const maxDigits = 19

// WholeNumber reads a number as JSON writes it, exactly; ok is false unless it is whole and fits
// 64 bits. A number with a fraction of zeros or an exponent may be whole: 1.0, 1.50e2.
func WholeNumber(text string) (n int64, ok bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, text[0] != '+'
	}
	mantissa, exponentText, hasExponent := strings.Cut(strings.ToLower(text), "e")
	sign := ""
	if strings.HasPrefix(mantissa, "-") {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, hasFraction := strings.Cut(mantissa, ".")
	if !isDigits(whole) || hasFraction && !isDigits(fraction) {
		return 0, false
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent := 0
	if hasExponent {
		var err error
		if exponent, err = strconv.Atoi(exponentText); err != nil {
			return 0, digits == "" && errors.Is(err, strconv.ErrRange) // zero, however often it is multiplied
		}
	}
	if digits == "" {
		return 0, true
	}
	trimmed := strings.TrimRight(digits, "0")
	zeros := exponent - len(fraction) + len(digits) - len(trimmed)
	if zeros < 0 || zeros > maxDigits || len(trimmed)+zeros > maxDigits {
		return 0, false
	}
	n, err := strconv.ParseInt(sign+trimmed+strings.Repeat("0", zeros), 10, 64)
	return n, err == nil
}

func isDigits(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}
