package event

import (
	"encoding/json"
	"slices"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Audience says which events one reader may see: those of the types in All,
// those in Own that concern the User, and those in Public that are public.
type Audience struct {
	All, Own, Public []Type
	User             uid.User
}

// AudienceOf returns the audience of the principal with its rights of now; an anonymous caller
// sees no event. STAFF and ADMIN see all events but those of others' credentials, which ADMIN
// alone sees; other callers see events that concern them, and those of active products. SERVICE,
// STAFF and ADMIN see events of the registry, since these contain URLs. Scopes narrow what an
// API key sees.
func AudienceOf(p *auth.Principal) *Audience {
	a := &Audience{}
	if p == nil {
		return a
	}
	a.User = p.UserID
	services := ServiceTypes()
	for _, t := range Types() {
		scope, limited := scopeOf(t)
		switch {
		case slices.Contains(services, t):
			if p.MayUseServices() {
				a.All = append(a.All, t)
			}
		case limited && !p.May(scope):
		case p.Has(auth.Admin) || p.IsStaff() && !isCredential(t):
			a.All = append(a.All, t)
		case limited:
			a.Own = append(a.Own, t)
		default:
			a.Public = append(a.Public, t)
		}
	}
	return a
}

// Sees reports whether the reader may see the event.
func (a *Audience) Sees(e *Event) bool {
	switch {
	case slices.Contains(a.All, e.Type):
		return true
	case slices.Contains(a.Own, e.Type):
		return a.User != "" && e.Concerns(string(a.User))
	default:
		return e.Public && slices.Contains(a.Public, e.Type)
	}
}

// narrow returns the audience as far as it matters for events of the types; all if empty.
func (a *Audience) narrow(types []Type) Audience {
	wanted := func(list []Type) []Type {
		return slices.DeleteFunc(slices.Clone(list), func(t Type) bool { return len(types) > 0 && !slices.Contains(types, t) })
	}
	n := Audience{All: wanted(a.All), Own: wanted(a.Own), Public: wanted(a.Public)}
	if len(n.Own) > 0 {
		n.User = a.User
	}
	return n
}

// scopeOf returns the scope that an API key needs to see events of the type;
// limited is false for what needs none: products.
func scopeOf(t Type) (scope auth.Scope, limited bool) {
	switch t {
	case ProductCreated, ProductUpdated, ProductStockChanged:
		return "", false
	case OrderPlaced, OrderPaid, OrderShipped, OrderDelivered, OrderCancelled, OrderRefunded, PaymentRefundRequested:
		return auth.OrdersRead, true
	case ServiceRegistered, ServiceUpdated, ServiceDeregistered, InstanceRegistered, InstanceStatusChanged, InstanceDeregistered:
		return auth.ServicesRead, true
	default: // users, their credentials, and types not listed here
		return auth.UsersRead, true
	}
}

// isCredential reports whether events of the type are about credentials.
func isCredential(t Type) bool {
	switch t {
	case SessionRevoked, APIKeyCreated, APIKeyRevoked, SigningKeyRotated:
		return true
	default:
		return false
	}
}

// IsPublic reports whether every signed-in caller may see an event of the type with the data:
// one of a product that was active then.
func IsPublic(t Type, data json.RawMessage) bool {
	if _, limited := scopeOf(t); limited {
		return false
	}
	var product struct {
		Active bool `json:"active"`
	}
	return json.Unmarshal(data, &product) == nil && product.Active
}
