package event

import (
	"slices"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
)

func TestAudience_shows_types_without_readers_to_ADMIN_alone(t *testing.T) {
	t.Parallel()
	forgotten := []Declaration{{Type: "coupon.created"}}
	for _, role := range auth.Roles() {
		for name, by := range map[string]auth.Credential{
			"session":                auth.SessionCredential("ses_1"),
			"key with every scope":   auth.APIKeyCredential("key_1", auth.Scopes()...),
			"key with another scope": auth.APIKeyCredential("key_1", auth.UsersRead),
		} {
			a := audienceOf(&auth.Principal{UserID: "usr_me", Roles: []auth.Role{role}, Credential: by}, forgotten)
			sees := a.Sees(&Event{Type: "coupon.created", Related: []string{"usr_me"}, Public: true})
			if want := role == auth.Admin && name == "session"; sees != want {
				t.Errorf("%s by %s sees a type without readers: %v, want %v", role, name, sees, want)
			}
		}
	}
}

func TestAudience_shows_types_without_a_declaration_to_no_caller(t *testing.T) {
	t.Parallel()
	a := AudienceOf(&auth.Principal{UserID: "usr_me", Roles: auth.Roles(), Credential: auth.SessionCredential("ses_1")})
	if a.Sees(&Event{Type: "coupon.created", Related: []string{"usr_me"}, Public: true}) || IsPublic("coupon.created", []byte(`{"active":true}`)) {
		t.Error("a caller with every role sees a type that no domain declares")
	}
}

func TestDeclare_refuses(t *testing.T) { //nolint:paralleltest // it restores the declarations
	before := slices.Clone(declarations)
	defer func() { declarations = before }()
	Declare(Declaration{Type: "a.declared", Readers: ReadersStaff, Scope: auth.OrdersRead})
	for name, d := range map[string]Declaration{
		"a type without a name":      {Readers: ReadersAdmin},
		"a second declaration":       {Type: "a.declared", Readers: ReadersPublic},
		"readers without a scope":    {Type: "b.declared", Readers: ReadersOwner},
		"a scope that is not needed": {Type: "b.declared", Readers: ReadersPublic, Scope: auth.OrdersRead},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Declare accepts %s", name)
				}
			}()
			Declare(d)
		}()
	}
}
