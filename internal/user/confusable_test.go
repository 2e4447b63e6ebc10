package user

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

func TestSkeleton_is_that_of_names_that_look_alike(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"root", "гоот", true}, {"root", "ГООТ", true}, {"root", "гооТ", true}, {"Poot", "ροοτ", true}, {"root", "ṛoot", true}, {"root", "r00t", true}, {"root", "røøt", true},
		{"admin", "ADMlN", true}, {"admin", "adm1n", true}, {"admin", "admın", true}, {"admin", "adrnin", true}, {"ADMIN", "âdmín", true},
		{"ANNA", "ΑΝΝΑ", true}, {"avva", "αννα", true}, {"anna", "αννα", false}, {"Oskar", "ОЅКАR", true}, {"sos", "ꓢꓳꓢ", true}, {"Ада", "ада", true}, {"Straße", "STRASSE", true},
		{"root", "ruut", false}, {"root", "roots", false}, {"admin", "админ", false}, {"ada", "ida", false}, {"नेहा", "नहा", false}, {"\u5c71\u7530", "\u5c71\u53e3", false}, {"محمد", "محمود", false},
	} {
		if same := Skeleton(tt.a) == Skeleton(tt.b); same != tt.same {
			t.Errorf("the skeletons of %q and %q are %+q and %+q, want them equal: %v", tt.a, tt.b, Skeleton(tt.a), Skeleton(tt.b), tt.same)
		}
	}
}

func TestUser_has_a_reserved_name_only_as_STAFF_or_ADMIN(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"root", "Admin", "гоот", "ροοτ", "Админ", "ṛoot", "ѕуѕтем", "SUPP0RT", "m0derator"} {
		for role, want := range map[auth.Role]fault.Code{auth.Customer: CodeUsernameTaken, auth.Service: CodeUsernameTaken, auth.Staff: "", auth.Admin: ""} {
			_, created := New(Profile{Username: name}, []auth.Role{role}, nil, at)
			renamed := newUser(t, role).Apply(Change{Username: validate.Of(name)}, 1, at)
			for what, err := range map[string]error{"creating": created, "renaming": renamed} {
				if want == "" && err != nil || want != "" && !fault.Is(err, want) {
					t.Errorf("%s a %s as %q gave %v, want %q", what, role, name, err, want)
				}
			}
		}
	}
	stored := newUser(t, auth.Staff)
	stored.Username = "support"
	if err := stored.Apply(Change{Username: validate.Of("support"), Roles: validate.Of([]auth.Role{auth.Customer})}, 1, at); err != nil {
		t.Errorf("taking the role from an account with a reserved name gave %v", err)
	}
}

func TestCheckConfusable_compares_with_other_accounts(t *testing.T) {
	t.Parallel()
	u := newUser(t, auth.Customer)
	for _, tt := range []struct {
		name  string
		staff []Named
		taken bool
	}{
		{"no staff", nil, false},
		{"other names", []Named{{uid.NewUser(at), "Ida"}, {uid.NewUser(at), "Adam"}}, false},
		{"its own name", []Named{{u.ID, "Ada"}}, false},
		{"a name in Cyrillic letters", []Named{{uid.NewUser(at), "Ida"}, {uid.NewUser(at), "аԁа"}}, true},
	} {
		if err := u.CheckConfusable(tt.staff); fault.Is(err, CodeUsernameTaken) != tt.taken {
			t.Errorf("%s beside %q gave %v, want it taken: %v", u.Username, tt.name, err, tt.taken)
		}
	}
}
