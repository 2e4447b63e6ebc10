package event_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/user"
)

// TestAudience_Sees goes through every type of event.
func TestAudience_Sees(t *testing.T) {
	t.Parallel()
	const me, other = "usr_me", "usr_other"
	person := func(r auth.Role) *auth.Principal {
		return &auth.Principal{UserID: me, Roles: []auth.Role{r}, Credential: auth.SessionCredential("ses_1")}
	}
	key := func(r auth.Role, scopes ...auth.Scope) *auth.Principal {
		return &auth.Principal{UserID: me, Roles: []auth.Role{r}, Credential: auth.APIKeyCredential("key_1", scopes...)}
	}
	is := func(types ...event.Type) func(event.Type) bool {
		return func(t event.Type) bool { return slices.Contains(types, t) }
	}
	products := is(order.EventProductCreated, order.EventProductUpdated, order.EventProductStockChanged)
	credentials := is(session.EventSessionRevoked, session.EventAPIKeyCreated, session.EventAPIKeyRevoked, session.EventAPIKeyExpiring, token.EventSigningKeyRotated, token.EventSigningKeyRevoked)
	users := is(user.EventUserCreated, event.UserUpdated, event.UserDeleted, session.EventSessionRevoked, session.EventAPIKeyCreated, session.EventAPIKeyRevoked, session.EventAPIKeyExpiring, token.EventSigningKeyRotated, token.EventSigningKeyRevoked)
	always := func(event.Type) bool { return true }
	never := func(event.Type) bool { return false }
	not := func(fn func(event.Type) bool) func(event.Type) bool { return func(t event.Type) bool { return !fn(t) } }
	services := is(registry.EventTypes()...)
	both := func(a, b func(event.Type) bool) func(event.Type) bool {
		return func(t event.Type) bool { return a(t) || b(t) }
	}
	tests := []struct {
		name                        string
		who                         *auth.Principal
		mine, others, hidden, shown func(event.Type) bool // own events, those of others, of inactive and of active products
	}{
		{"an anonymous caller sees nothing", nil, never, never, never, never},
		{"a customer sees its own, and active products", person(auth.Customer), not(both(products, services)), never, never, products},
		{"a program sees what its user would, and the registry", person(auth.Service), not(products), services, services, both(products, services)},
		{"a key of a program for services sees the registry", key(auth.Service, auth.ServicesRead), services, services, services, both(products, services)},
		{"a key of a service sees the registry", key(auth.Service, auth.ServiceScope("echo")), services, services, services, both(products, services)},
		{"a customer's key for services does not", key(auth.Customer, auth.ServicesRead), never, never, never, products},
		{"staff see all but the credentials of others", person(auth.Staff), always, not(credentials), not(credentials), not(credentials)},
		{"an admin sees all", person(auth.Admin), always, always, always, always},
		{"a key without scopes sees active products", key(auth.Customer), never, never, never, products},
		{"a key that reads orders sees no accounts", key(auth.Customer, auth.OrdersRead), func(t event.Type) bool { return !products(t) && !users(t) && !services(t) }, never, never, products},
		{"a key that reads users sees no orders", key(auth.Admin, auth.UsersRead), func(t event.Type) bool { return products(t) || users(t) },
			func(t event.Type) bool { return products(t) || users(t) }, func(t event.Type) bool { return products(t) || users(t) },
			func(t event.Type) bool { return products(t) || users(t) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := event.AudienceOf(tt.who)
			check := func(what string, e event.Event, want bool) {
				if got := a.Sees(&e); got != want {
					t.Errorf("Sees(%s, %s) = %v, want %v", e.Type, what, got, want)
				}
			}
			for _, typ := range event.Types() {
				check("own", event.Event{Type: typ, SubjectID: "x", Related: []string{me}}, tt.mine(typ))
				check("other", event.Event{Type: typ, SubjectID: "x", Related: []string{other}}, tt.others(typ))
				for _, active := range []bool{true, false} {
					data, _ := json.Marshal(map[string]bool{"active": active})
					e := event.Event{Type: typ, SubjectID: "x", Public: event.IsPublic(typ, data)}
					want := tt.hidden
					if active {
						want = tt.shown
					}
					check("public", e, want(typ))
				}
			}
		})
	}
}
