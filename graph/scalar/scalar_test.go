package scalar

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	_ "github.com/backplane-dev/backplane/internal/order"         // declares types of events, as do
	_ "github.com/backplane-dev/backplane/internal/registry"      // these
	_ "github.com/backplane-dev/backplane/internal/session"       //
	_ "github.com/backplane-dev/backplane/internal/session/token" //
	_ "github.com/backplane-dev/backplane/internal/user"          //
)

func TestScalars_are_strict(t *testing.T) {
	t.Parallel()
	read := map[string]func(any) error{
		"String":       func(v any) error { _, err := UnmarshalString(v); return err },
		"ID":           func(v any) error { _, err := UnmarshalID(v); return err },
		"Int":          func(v any) error { _, err := UnmarshalInt(v); return err },
		"Boolean":      func(v any) error { _, err := UnmarshalBoolean(v); return err },
		"DateTime":     func(v any) error { _, err := UnmarshalDateTime(v); return err },
		"Decimal":      func(v any) error { _, err := UnmarshalDecimal(v); return err },
		"CurrencyCode": func(v any) error { _, err := UnmarshalCurrencyCode(v); return err },
		"EventType":    func(v any) error { _, err := UnmarshalEventType(v); return err },
	}
	tests := map[string]struct{ good, bad []any }{
		"String":  {[]any{"", "Zoë", "a\nb"}, []any{5, json.Number("5"), true, nil, "\x00", "\xff", []any{"a"}, map[string]any{}}},
		"ID":      {[]any{"ord_1", json.Number("17"), int64(17)}, []any{true, 1.5, nil, "\x00"}},
		"Int":     {[]any{5, int64(math.MinInt32), json.Number("2147483647"), json.Number("1e3"), 2.0}, []any{"5", true, nil, 2.5, json.Number("2147483648"), json.Number("1e99"), math.NaN()}},
		"Boolean": {[]any{true, false}, []any{"true", 1, nil, json.Number("1")}},
		"DateTime": {[]any{
			"2026-03-01T12:30:00Z", "2026-03-01T12:30:00.123456789+05:30", "2026-03-01t12:30:00z", "2026-03-01T12:30:00-23:59", "2016-12-31T23:59:60Z", "2017-01-01T01:29:60.5+01:30", "2026-03-01T00:00:00.5Z",
		}, []any{
			"2026-03-01T12:30:00+24:00", "2026-03-01T12:30:00+05:60", "2026-03-01T12:30:00,5Z", "2026-03-01T12:30:00.Z", "2026-03-01T12:30Z", "2026-03-01T24:00:00Z", "2026-03-01T12:30:60Z", "2026-03-01T12:30:61Z",
			"2026-02-30T00:00:00Z", "2026-3-01T12:30:00Z", "2026-03-01 12:30:00Z", "2026-03-01T12:30:00", "2026-03-01T12:30:00+0530", "+2026-03-01T12:30:00Z", "2026-03-01T12:30:00Z ", "2026-03-01T12:30:00.1234567890123456Z",
			"2026-03-01", "12:30", 1772368200, nil, "", "2026-13-01T00:00:00Z", "0000-01-01T00:00:00Z",
		}},
		"Decimal":      {[]any{"1", "1.50", "-0.01"}, []any{1, 1.5, json.Number("1.5"), "", ".", "1.", ".5", "1e3", "+1", "1,5", "٣"}},
		"EventType":    {[]any{"ORDER_PLACED", "API_KEY_CREATED"}, []any{"order.placed", "ORDER", "", 1, nil}},
		"CurrencyCode": {[]any{"EUR"}, []any{"eur", "EU", "EURO", 978, nil, "ÄÖÜ"}},
	}
	for name, tt := range tests {
		for _, v := range tt.good {
			if err := read[name](v); err != nil {
				t.Errorf("%s refuses %#v: %v", name, v, err)
			}
		}
		for _, v := range tt.bad {
			if err := read[name](v); !fault.Is(err, fault.BadInput) {
				t.Errorf("%s of %#v gave %v, want BAD_INPUT", name, v, err)
			}
		}
	}
}

func TestDateTime_is_written_in_UTC_as_it_was_read(t *testing.T) {
	t.Parallel()
	read, err := UnmarshalDateTime("2026-03-01T12:30:00.123456789+05:30")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	MarshalDateTime(read).MarshalGQL(&b)
	if got, want := b.String(), `"2026-03-01T07:00:00.123456Z"`; got != want {
		t.Errorf("written as %s, want %s", got, want)
	}
	leap, err := UnmarshalDateTime("2016-12-31T23:59:60.25Z")
	if want := time.Date(2017, 1, 1, 0, 0, 0, 250_000_000, time.UTC); err != nil || !leap.Equal(want) {
		t.Errorf("a leap second is read as %v, %v, want %v", leap, err, want)
	}
	b.Reset()
	MarshalDateTime(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)).MarshalGQL(&b)
	if got, want := b.String(), `"2026-03-01T00:00:00Z"`; got != want {
		t.Errorf("written as %s, want %s", got, want)
	}
}

func TestNumbers_stay_in_the_range_of_their_scalar(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		written(MarshalInt(math.MaxInt64)): "2147483647", written(MarshalInt(math.MinInt64)): "-2147483648", written(MarshalInt(17)): "17",
		written(MarshalLong(math.MaxInt64)): "9007199254740991", written(MarshalLong(math.MinInt64)): "-9007199254740991",
	} {
		if got != want {
			t.Errorf("a number is written %s, want %s", got, want)
		}
	}
}
