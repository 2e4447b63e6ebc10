package money

import (
	"math"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
)

func TestParse_reads_exactly_what_Amount_writes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		amount, currency string
		minor            int64
		shown            string
	}{
		{"12.9", "EUR", 1290, "12.90"},
		{"0", "EUR", 0, "0.00"},
		{"0.01", "USD", 1, "0.01"},
		{"007", "JPY", 7, "7"},
		{"1.234", "KWD", 1234, "1.234"},
		{"90071992547409.91", "EUR", Max, "90071992547409.91"},
	}
	for _, tt := range tests {
		m, err := Parse(tt.amount, tt.currency)
		if err != nil || m.Minor != tt.minor || m.Amount() != tt.shown {
			t.Errorf("Parse(%q, %s) = %d (%q), %v, want %d (%q)", tt.amount, tt.currency, m.Minor, m.Amount(), err, tt.minor, tt.shown)
		}
	}
}

func TestParse_refuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, amount, currency string
		code                   fault.Code
	}{
		{"more digits than the currency has", "1.001", "EUR", fault.AmountInvalid},
		{"any digit after the point of a currency without", "1.0", "JPY", fault.AmountInvalid},
		{"a negative amount", "-1", "EUR", fault.AmountInvalid},
		{"an exponent", "1e3", "EUR", fault.AmountInvalid},
		{"no digits before the point", ".5", "EUR", fault.AmountInvalid},
		{"no digits after the point", "5.", "EUR", fault.AmountInvalid},
		{"two points", "1.2.3", "EUR", fault.AmountInvalid},
		{"nothing", "", "EUR", fault.AmountInvalid},
		{"digits of another script", "١", "EUR", fault.AmountInvalid},
		{"one cent too many", "90071992547409.92", "EUR", fault.AmountInvalid},
		{"more digits than fit", "99999999999999999999", "EUR", fault.AmountInvalid},
		{"a currency that is none", "1", "XXX", fault.CurrencyUnknown},
		{"a currency in small letters", "1", "eur", fault.CurrencyUnknown},
		{"a currency of the past", "1", "DEM", fault.CurrencyUnknown},
	}
	for _, tt := range tests {
		if _, err := Parse(tt.amount, tt.currency); !fault.Is(err, tt.code) {
			t.Errorf("Parse of %s gave %v, want %s", tt.name, err, tt.code)
		}
	}
}

func TestSums_never_wrap(t *testing.T) {
	t.Parallel()
	big := Money{math.MaxInt64/2 + 1, "EUR"}
	if _, ok := big.Times(2); ok {
		t.Error("Times wrapped")
	}
	if _, ok := big.Plus(big); ok {
		t.Error("Plus wrapped")
	}
	if _, ok := (Money{1, "EUR"}).Plus(Money{1, "USD"}); ok {
		t.Error("Plus added dollars to euros")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("12.90", "EUR")
	f.Add("1.234", "KWD")
	f.Add("5", "JPY")
	f.Fuzz(func(t *testing.T, amount, currency string) {
		m, err := Parse(amount, currency)
		if err != nil {
			return
		}
		again, err := Parse(m.Amount(), m.Currency)
		if err != nil || again != m || m.Minor < 0 || m.Minor > Max {
			t.Errorf("Parse(%q, %q) = %+v, which reads back as %+v, %v", amount, currency, m, again, err)
		}
	})
}
