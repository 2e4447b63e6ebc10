package validate_test

import (
	"encoding/json"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/validate"
)

func TestWholeNumber_reads_what_JSON_writes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "0.0": 0, "0e5": 0, "0e999999999": 0, "7": 7, "-7": -7, "1.0": 1, "-1.00": -1, "1e2": 100, "1E+2": 100, "1.5e1": 15, "150e-1": 15, "0.05e2": 5,
		"9007199254740993.0": 9007199254740993, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64, "9.223372036854775807e18": math.MaxInt64,
	} {
		if got, ok := validate.WholeNumber(text); !ok || got != want {
			t.Errorf("WholeNumber(%s) = %d, %t, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "-", "+1", "1.5", "1e-1", "0.1", "1.", ".5", "1e", "1e1.0", "x", "0x10", "1_000", "9223372036854775808", "9.3e18", "1e19", "1e999999999999",
		"1e-999999999999", "NaN", "Infinity", "1e9223372036854775807",
	} {
		if got, ok := validate.WholeNumber(text); ok {
			t.Errorf("WholeNumber(%q) = %d, want none", text, got)
		}
	}
}

func FuzzWholeNumber(f *testing.F) {
	for _, text := range []string{"0", "-1.0", "1e2", "15e-1", "9223372036854775807", "1e-5", "0E10000000000000000000", "1e-10000000000000000000"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) || len(text) > 50 || text == "" || text[0] != '-' && (text[0] < '0' || text[0] > '9') {
			return
		}
		got, ok := validate.WholeNumber(text)
		if approx, err := json.Number(text).Float64(); err != nil || math.Abs(approx) > 1e25 || approx != 0 && math.Abs(approx) < 1e-25 {
			if ok && got != 0 {
				t.Fatalf("WholeNumber(%s) = %d", text, got)
			}
			return
		}
		exact, valid := new(big.Rat).SetString(text)
		if !valid { // an exponent that math/big does not take, of zero or of what rounds to it
			mantissa, _, _ := strings.Cut(strings.ToLower(text), "e")
			if isZero := strings.Trim(mantissa, "-0.") == ""; ok != isZero || got != 0 {
				t.Errorf("WholeNumber(%s) = %d, %t, want 0, %t", text, got, ok, isZero)
			}
			return
		}
		want := exact.IsInt() && exact.Num().IsInt64()
		if ok != want || ok && exact.Num().Int64() != got {
			t.Errorf("WholeNumber(%s) = %d, %t, want %s, %t", text, got, ok, exact, want)
		}
	})
}
