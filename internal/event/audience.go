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

// AudienceOf returns the audience of the principal with its rights of now, as the types of
// events declare their readers; an anonymous caller sees no event. STAFF and ADMIN see all
// events but those of others' credentials, which ADMIN alone sees; other callers see events
// that concern them, and those of active products. SERVICE, STAFF and ADMIN see events of the
// registry, since these contain URLs. Scopes narrow what an API key sees.
func AudienceOf(p *auth.Principal) *Audience { return audienceOf(p, declarations) }

func audienceOf(p *auth.Principal, declared []Declaration) *Audience {
	a := &Audience{}
	if p == nil {
		return a
	}
	a.User = p.UserID
	for _, d := range declared {
		switch {
		case d.Readers == ReadersServices:
			if p.MayUseServices() {
				a.All = append(a.All, d.Type)
			}
		case d.Readers != ReadersPublic && !p.May(d.Scope): // no API key has the empty scope
		case p.Has(auth.Admin) || p.IsStaff() && (d.Readers == ReadersStaff || d.Readers == ReadersPublic):
			a.All = append(a.All, d.Type)
		case d.Readers == ReadersOwner || d.Readers == ReadersStaff:
			a.Own = append(a.Own, d.Type)
		case d.Readers == ReadersPublic:
			a.Public = append(a.Public, d.Type)
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

// IsPublic reports whether every signed-in caller may see an event of the type with the data:
// one of ReadersPublic whose subject, such as a product, was active then.
func IsPublic(t Type, data json.RawMessage) bool {
	if declarationOf(t).Readers != ReadersPublic {
		return false
	}
	var subject struct {
		Active bool `json:"active"`
	}
	return json.Unmarshal(data, &subject) == nil && subject.Active
}
