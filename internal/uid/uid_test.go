package uid

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)

func TestNew_makes_well_formed_ids_of_its_kind(t *testing.T) {
	t.Parallel()
	for kind, id := range map[Kind]string{
		KindUser: string(NewUser(at)), KindProduct: string(NewProduct(at)), KindOrder: string(NewOrder(at)),
		KindSession: string(NewSession(at)), KindAPIKey: string(NewAPIKey(at)), KindEvent: string(NewEvent(at)),
	} {
		if got, ok := KindOf(id); !ok || got != kind {
			t.Errorf("KindOf(%q) = %q, %v, want %q", id, got, ok, kind)
		}
	}
}

func TestIDs_sort_by_their_time(t *testing.T) {
	t.Parallel()
	var ids []Order
	for i := range 1000 {
		ids = append(ids, NewOrder(at.Add(time.Duration(i)*time.Millisecond)))
	}
	if !slices.IsSorted(ids) {
		t.Error("ids made one millisecond after another do not sort in that order")
	}
}

func TestDerive_is_deterministic_and_spells_a_UUIDv7(t *testing.T) {
	t.Parallel()
	// The UUID 0195512a-c6c0-7000-8000-000000000000 in base 32, worked out by hand
	// from 48 bits of milliseconds (0x0195512ac6c0), version 7 and variant 2.
	ms := time.UnixMilli(0x0195512ac6c0)
	if got, want := Derive(KindUser, ms, [16]byte{}), "usr_01jn8jnhp0e008000000000000"; got != want {
		t.Errorf("Derive = %q, want %q", got, want)
	}
}

func TestKindOf_refuses(t *testing.T) {
	t.Parallel()
	good := string(NewUser(at))
	for name, s := range map[string]string{
		"nothing":                 "",
		"no prefix":               good[4:],
		"an unknown prefix":       "xyz" + good[3:],
		"a suffix too short":      good[:len(good)-1],
		"a suffix too long":       good + "0",
		"capitals":                strings.ToUpper(good),
		"letters that mislead":    good[:len(good)-1] + "l",
		"more than 128 bits":      "usr_8" + good[5:],
		"a NUL":                   good[:len(good)-1] + "\x00",
		"a second underscore":     "usr_" + good,
		"an empty prefix":         good[3:],
		"bytes that are no UTF-8": good[:len(good)-1] + "\xff",
	} {
		if kind, ok := KindOf(s); ok {
			t.Errorf("KindOf of %s = %q, want it refused", name, kind)
		}
	}
}
