package auth

import (
	"slices"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

const (
	ada = uid.User("usr_ada")
	bob = uid.User("usr_bob")
)

func sessionOf(roles ...Role) *Principal {
	return &Principal{UserID: ada, Roles: roles, Credential: SessionCredential("ses_1")}
}

func keyOf(scopes []Scope, roles ...Role) *Principal {
	return &Principal{UserID: ada, Roles: roles, Credential: APIKeyCredential("key_1", scopes...)}
}

func TestRequire_denies_by_default(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		caller  *Principal
		require func(t *testing.T, p *Principal) error
		code    fault.Code // empty if allowed
	}{
		{"an anonymous caller", nil, scope(OrdersRead), fault.Unauthenticated},
		{"a session", sessionOf(Customer), scope(OrdersRead), ""},
		{"a key with the scope", keyOf([]Scope{OrdersRead}, Customer), scope(OrdersRead), ""},
		{"a key with another scope", keyOf([]Scope{OrdersWrite}, Admin), scope(OrdersRead), fault.Forbidden},
		{"a key without scopes", keyOf(nil, Admin), scope(OrdersRead), fault.Forbidden},
		{"the system", &Principal{Credential: SystemCredential()}, scope(OrdersRead), ""},
		{"the system where a session is needed", &Principal{Credential: SystemCredential()}, signedIn, fault.Forbidden},
		{"a principal without a credential", &Principal{UserID: ada, Roles: []Role{Admin}}, scope(OrdersRead), fault.Forbidden},
		{"a credential of another kind without scopes", &Principal{UserID: ada, Credential: Credential{Kind: "other", ID: "x"}}, scope(OrdersRead), fault.Forbidden},
		{"a key where a session is needed", keyOf(Scopes(), Admin), signedIn, fault.Forbidden},
		{"a session where one is needed", sessionOf(Customer), signedIn, ""},
		{"an anonymous caller where a session is needed", nil, signedIn, fault.Unauthenticated},
		{"a customer where staff is needed", sessionOf(Customer), staff, fault.Forbidden},
		{"staff", sessionOf(Staff), staff, ""},
		{"an admin counts as staff", sessionOf(Admin), staff, ""},
		{"a service is no staff", sessionOf(Service), staff, fault.Forbidden},
		{"staff where an admin is needed", sessionOf(Staff), admin, fault.Forbidden},
		{"an admin's key without the scope", keyOf([]Scope{OrdersRead}, Admin), admin, fault.Forbidden},
	}
	for _, tt := range tests {
		err := tt.require(t, tt.caller)
		if tt.code == "" && err != nil || tt.code != "" && !fault.Is(err, tt.code) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.code)
		}
	}
}

func scope(s Scope) func(*testing.T, *Principal) error {
	return func(t *testing.T, p *Principal) error { _, err := Require(With(t.Context(), p), s); return err }
}

func signedIn(t *testing.T, p *Principal) error {
	_, err := RequireSession(With(t.Context(), p))
	return err
}

func staff(t *testing.T, p *Principal) error {
	_, err := RequireStaff(With(t.Context(), p), OrdersWrite)
	return err
}

func admin(t *testing.T, p *Principal) error {
	_, err := RequireAdmin(With(t.Context(), p), OrdersWrite)
	return err
}

func TestMaySee_is_for_owners_and_staff(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		caller *Principal
		owner  uid.User
		want   bool
	}{
		{"an anonymous caller", nil, ada, false},
		{"its owner", sessionOf(Customer), ada, true},
		{"another user", sessionOf(Customer), bob, false},
		{"staff", sessionOf(Staff), bob, true},
		{"the owner's key with the scope", keyOf([]Scope{OrdersRead}, Customer), ada, true},
		{"the owner's key without it", keyOf([]Scope{UsersRead}, Customer), ada, false},
		{"a caller without a user, of what has none", &Principal{}, "", false},
	}
	for _, tt := range tests {
		if got := tt.caller.MaySee(tt.owner, OrdersRead); got != tt.want {
			t.Errorf("%s: MaySee = %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestRequireLister_is_for_everything_only_of_staff(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		p       *Principal
		only    bool
		refused bool
	}{
		"a customer":                       {p: sessionOf(Customer), only: true},
		"staff":                            {p: sessionOf(Staff)},
		"an admin":                         {p: sessionOf(Admin)},
		"a key of staff with the scope":    {p: keyOf([]Scope{OrdersRead}, Staff)},
		"a key of staff without the scope": {p: keyOf([]Scope{UsersRead}, Staff), refused: true},
		"an anonymous caller":              {refused: true},
	} {
		ctx := t.Context()
		if tt.p != nil {
			ctx = With(ctx, tt.p)
		}
		only, err := RequireLister(ctx, OrdersRead)
		if (err != nil) != tt.refused || (only != nil) != tt.only || only != nil && *only != tt.p.UserID {
			t.Errorf("%s may list the things of %v, %v", name, only, err)
		}
	}
}

func TestMaySetLegacyID_needs_admin_or_the_scope(t *testing.T) {
	t.Parallel()
	for want, callers := range map[bool][]*Principal{
		true:  {sessionOf(Admin), keyOf([]Scope{LegacyWrite}, Admin), keyOf([]Scope{LegacyWrite}, Service)},
		false: {nil, sessionOf(Staff), sessionOf(Customer), keyOf([]Scope{UsersWrite}, Admin), keyOf([]Scope{LegacyWrite}, Customer), keyOf([]Scope{LegacyWrite}, Staff)},
	} {
		for _, p := range callers {
			if p.MaySetLegacyID() != want {
				t.Errorf("MaySetLegacyID of %+v is %v, want %v", p, !want, want)
			}
			if err := p.AllowLegacyID(true); (err == nil) != want || p.AllowLegacyID(false) != nil {
				t.Errorf("AllowLegacyID of %+v gives %v, want it to refuse: %v, and only if the call sets one", p, err, !want)
			}
		}
	}
}

// Each elevated scope grants what otherwise only ADMIN may do, so its key must have an owner
// that still has a role for it.
func TestElevated_scopes_hold_while_the_owner_has_the_role(t *testing.T) {
	t.Parallel()
	may := map[Scope]func(*Principal) bool{
		UsersAdmin:           (*Principal).MayAdministerUsers,
		LegacyWrite:          (*Principal).MaySetLegacyID,
		ServiceScope("echo"): func(p *Principal) bool { return p.MayManageService("echo") },
	}
	for _, s := range append(Scopes(), ServiceScope("echo")) {
		if (may[s] != nil) != s.Elevated() {
			t.Errorf("%s is elevated: %v, and this test has what it grants: %v", s, s.Elevated(), may[s] != nil)
		}
		for _, r := range Roles() {
			want := !s.Elevated() || r == Admin || r == Service && s != UsersAdmin
			if p := keyOf([]Scope{s}, r); p.May(s) != want || may[s] != nil && may[s](p) != want {
				t.Errorf("a key for %s of a %s may use it: %v, want %v", s, r, p.May(s), want)
			}
		}
		if grants := may[s]; grants != nil && (grants(keyOf(slices.DeleteFunc(Scopes(), Scope.Elevated), Admin)) || !grants(sessionOf(Admin)) || grants(sessionOf(Staff))) {
			t.Errorf("what %s grants is not for exactly sessions of ADMIN and keys with the scope", s)
		}
	}
}

func TestFrom_returns_the_current_caller(t *testing.T) {
	t.Parallel()
	caller := &Principal{UserID: ada}
	current := caller
	ctx := WithCurrent(t.Context(), func() *Principal { return current })
	if got := From(ctx); got != caller {
		t.Errorf("From = %v, want the caller", got)
	}
	current = nil
	if got := From(ctx); got != nil {
		t.Errorf("From without a current caller = %v, want nil", got)
	}
	if got := From(t.Context()); got != nil {
		t.Errorf("From of an empty context = %v, want nil", got)
	}
}

func TestClient_Network_is_the_address_or_of_IPv6_the_64(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64", "": "", "pipe": "pipe",
	} {
		if got := (Client{Address: address}).Network(); got != want {
			t.Errorf("Network of %q = %q, want %q", address, got, want)
		}
	}
}
