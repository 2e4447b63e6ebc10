package password

import (
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
)

func TestCheckNew_refuses_what_attackers_try_first(t *testing.T) {
	t.Parallel()
	names := []string{"mallory_99", "m.malone@shop.example", "Mallory Malone", "Jürgen"}
	for _, p := range []string{
		"password12", "Password123!", "P@ssw0rd123", "pa$$w0rd2026", "passwordpassword", "password password", "123password123", "PASSWORD1234", "Passwort2026!",
		"1234567890", "0987654321", "123456789012", "9876543210", "1111111111", "aaaaaaaaaa", "abcabcabcabc", "1212121212", "12345 12345", "..........",
		"qwertyuiop", "qwerty12345", "QwertyUIOP1", "asdfghjkl;1", "1q2w3e4r5t", "1qaz2wsx3edc", "poiuytrewq", "zxcvbnm123", "qwertyqwerty", "abcdefghij", "zyxwvutsrq",
		"iloveyou123", "ILoveYou!!!", "letmein2024", "l3tm31n1234", "welcome2026!", "admin12345", "administrator", "adminadmin", "changeme123", "iloveyouforever",
		"sunshine2026", "princess99!", "liverpool1892", "superman007", "jesuschrist1", "michael1985", "football2025", "summer2026!", "Winter-2025", "trustno1trustno1",
		"mallory_99!", "MALLORY99mallory", "mallory1234", "yrollam1234", "m.malone2026", "mmalone1234", "mallorymalone", "Malone.Mallory", "m.malone@shop.example", "mallory-password", "Ju\u0308rgen12345",
	} {
		err := CheckNew(p, names...)
		if !fault.Is(err, fault.PasswordInvalid) || strings.Join(fault.From(err).Path, ".") != "password" {
			t.Errorf("CheckNew(%q) = %v, want PASSWORD_INVALID at password", p, err)
		}
	}
}

func TestCheckNew_accepts_other_passwords(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"a password of mine", "a long enough password", "correct horse battery", "battery horse correct", "another password", "vq7-Lw2p-kk91", "Tr0ub4dor&3x", "xkcd-936-comic",
		"mallet and chisel", "пароль который долог", "ἀργὴ δ' ἡ νὺξ μακρά", "5839201746", "sunshine over muddy river", strings.Repeat("password", 20), Generate(),
	} {
		if err := CheckNew(p, "ada", "ada@example.org", "Ada Lovelace"); err != nil {
			t.Errorf("CheckNew(%q) = %v", p, err)
		}
	}
	if err := CheckNew("short", ""); !fault.Is(err, fault.PasswordInvalid) {
		t.Errorf("CheckNew of a short password = %v, want PASSWORD_INVALID", err)
	}
}

func TestCheckNew_knows_a_thousand_common_passwords(t *testing.T) {
	t.Parallel()
	refused := 0
	for word := range commonWords {
		if len([]rune(word)) < 4 {
			continue
		}
		for _, p := range []string{word + "123456", strings.ToUpper(word[:1]) + word[1:] + "2026!!", word + word + "1"} {
			if len(p) < minLength {
				continue
			}
			if err := CheckNew(p); err == nil {
				t.Errorf("%q may be used", p)
				continue
			}
			refused++
		}
	}
	if refused < 1000 {
		t.Errorf("%d passwords are refused, want a thousand", refused)
	}
}

func TestHasher_verifies_a_common_password_that_is_in_use(t *testing.T) {
	t.Parallel()
	h := NewHasher(cheap)
	stored, err := h.Hash(t.Context(), "ada", "Password123!")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := h.Verify(t.Context(), "ada", "Password123!", stored); !ok || err != nil {
		t.Errorf("Verify = %v, %v; the account cannot sign in any more", ok, err)
	}
}

func FuzzCheckNew(f *testing.F) {
	f.Add("password12", "ada")
	f.Add("\xffaaaaaaaaaaaa", "\x00")
	f.Fuzz(func(t *testing.T, p, name string) {
		err := CheckNew(p, name)
		if err != nil && !fault.Is(err, fault.PasswordInvalid) {
			t.Errorf("CheckNew = %v", err)
		}
		if _, invalid := Normalize(p); invalid != nil && err == nil {
			t.Error("a password that cannot be used is accepted")
		}
	})
}
