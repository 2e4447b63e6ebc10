package user

import (
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

func newUser(t *testing.T, roles ...auth.Role) *User {
	t.Helper()
	u, err := New(Profile{Username: "Ada", Email: ptr("ada@example.org"), Name: "Ada L."}, roles, nil, at)
	if err != nil {
		t.Fatal(err)
	}
	u.TakeEvents()
	return u
}

func TestNew_refuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 65)
	tests := []struct {
		name    string
		profile Profile
		code    fault.Code
	}{
		{"an empty user name", Profile{Username: " "}, CodeUsernameInvalid},
		{"a user name too long", Profile{Username: long}, CodeUsernameInvalid},
		{"a user name with an at sign, which means email", Profile{Username: "a@b"}, CodeUsernameInvalid},
		{"a user name with a newline", Profile{Username: "a\nb"}, CodeUsernameInvalid},
		{"a user name that looks like an id", Profile{Username: "usr_01j9zq4m8ye7v9k2t3w5x6y7z8"}, CodeUsernameInvalid},
		{"the stand-in name of a deleted account", Profile{Username: "Deleted-1"}, CodeUsernameInvalid},
		{"an email without a domain", Profile{Username: "a", Email: ptr("a@")}, CodeEmailInvalid},
		{"an email with a space", Profile{Username: "a", Email: ptr("a b@c.de")}, CodeEmailInvalid},
		{"an email with two at signs", Profile{Username: "a", Email: ptr("a@b@c.de")}, CodeEmailInvalid},
		{"a name with a NUL", Profile{Username: "a", Name: "\x00"}, fault.BadInput},
	}
	for _, tt := range tests {
		if _, err := New(tt.profile, []auth.Role{auth.Customer}, nil, at); !fault.Is(err, tt.code) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.code)
		}
	}
}

func TestUsernameKey_folds_what_looks_alike(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{{"Ada", "aDA"}, {"Straße", "STRASSE"}, {"é", "e\u0301"}, {"ﬁn", "FIN"}} {
		if UsernameKey(pair[0]) != UsernameKey(pair[1]) {
			t.Errorf("%q and %q are different user names", pair[0], pair[1])
		}
	}
}

func TestApply_raises_the_version_only_if_something_changes(t *testing.T) {
	t.Parallel()
	u := newUser(t, auth.Customer)
	if err := u.Apply(Change{Username: validate.Of("Ada")}, 0, at); err != nil || u.Version != 1 || len(u.TakeEvents()) != 0 {
		t.Errorf("the same name gave %v at version %d", err, u.Version)
	}
	if err := u.Apply(Change{Email: validate.Of[*string](nil)}, 0, at); err != nil || u.Version != 2 || u.Email != nil {
		t.Errorf("taking the email away gave %v at version %d", err, u.Version)
	}
	if evs := u.TakeEvents(); len(evs) != 1 || evs[0].Type != event.UserUpdated || evs[0].SubjectVersion != 2 {
		t.Errorf("recorded %+v, want one user.updated at version 2", evs)
	}
}

func TestLastAdmin_cannot_be_removed(t *testing.T) {
	t.Parallel()
	ways := map[string]func(u *User, others int) error{
		"by taking the role": func(u *User, n int) error { return u.Apply(Change{Roles: validate.Of([]auth.Role{auth.Staff})}, n, at) },
		"by deactivating":    func(u *User, n int) error { return u.Apply(Change{Status: validate.Of(Deactivated)}, n, at) },
		"by deleting":        func(u *User, n int) error { return u.Delete(n, at) },
		"unless it stays one": func(u *User, n int) error {
			return u.Apply(Change{Roles: validate.Of([]auth.Role{auth.Admin, auth.Staff})}, n+1, at)
		},
	}
	for name, way := range ways {
		err := way(newUser(t, auth.Admin), 0)
		if stays := name == "unless it stays one"; stays != (err == nil) || !stays && !fault.Is(err, CodeLastAdmin) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := way(newUser(t, auth.Admin), 1); err != nil {
			t.Errorf("%s with another admin: got %v", name, err)
		}
	}
}

func TestDelete_leaves_nothing_personal(t *testing.T) {
	t.Parallel()
	u := newUser(t, auth.Customer)
	u.LegacyID = ptr("17")
	if err := u.Delete(0, at); err != nil {
		t.Fatal(err)
	}
	if u.Email != nil || u.Name != "" || u.LegacyID != nil || u.Status != Deleted || !strings.HasPrefix(u.Username, "deleted-") {
		t.Errorf("left %+v", u)
	}
	evs := u.TakeEvents()
	if len(evs) != 1 || strings.Contains(strings.ToLower(string(evs[0].Data)), "ada") {
		t.Errorf("the event still names the user: %s", evs[0].Data)
	}
	if err := u.Delete(0, at); err != nil || len(u.TakeEvents()) != 0 {
		t.Errorf("deleting again gave %v, want nothing to happen", err)
	}
	if err := u.Apply(Change{Name: validate.Of("Ada")}, 0, at); !fault.Is(err, fault.UserNotFound) {
		t.Errorf("changing a deleted account gave %v, want USER_NOT_FOUND", err)
	}
}

func TestNormalizeUsername_refuses_names_that_look_like_others(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"ada": true, "Zoë": true, "Žofie Müller": true, "Ада": true, "Ελένη": true, "\u5c71\u7530 \u592a\u90ce": true, "김민수": true, "नेहा": true, "محمد": true, "ada2": true,
		"аda": false, "adа": false, "αdmin": false, "stаff": false, // with a Cyrillic or Greek letter
		"r\u1d0fot": false, "\u0280oot": false, "\u0261uest": false, "\ua783oot": false, "adm\u026an": true, "Əli": true, "\u0186wusu": true, // phonetic letters, and those of Kulango, Azerbaijani and Twi
		"ada\ufe0f": false, "a\u034fda": false, "ada\u3164": false, "ada\u115f": false, "ada\u180b": false, "ada\u200b": false, "\u202eada": false,
	} {
		if _, err := normalizeUsername(name); (err == nil) != ok {
			t.Errorf("normalizeUsername(%q) = %v, want it accepted: %v", name, err, ok)
		}
	}
}
