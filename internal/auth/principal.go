package auth

import (
	"fmt"
	"slices"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Principal is an authenticated caller. It is immutable. A nil Principal is an
// anonymous caller, which every method allows nothing.
type Principal struct {
	UserID     uid.User // empty if the system itself acts
	Roles      []Role
	Credential Credential
}

// Has reports whether the principal has the role.
func (p *Principal) Has(r Role) bool { return p != nil && slices.Contains(p.Roles, r) }

// IsStaff reports whether the principal may see what belongs to others.
func (p *Principal) IsStaff() bool { return p.Has(Staff) || p.Has(Admin) }

// IsUnscopedAdmin reports whether the principal is ADMIN and no scopes narrow its
// credential: an API key of an ADMIN is not enough.
func (p *Principal) IsUnscopedAdmin() bool { return p.Has(Admin) && p.Credential.Unscoped() }

// Owns reports whether what belongs to the user belongs to the principal.
func (p *Principal) Owns(id uid.User) bool { return p != nil && p.UserID != "" && p.UserID == id }

// SessionID returns the session that authenticates the principal, empty if
// another kind of credential does.
func (p *Principal) SessionID() uid.Session {
	if p == nil || p.Credential.Kind != KindSession {
		return ""
	}
	return uid.Session(p.Credential.ID)
}

// APIKeyID returns the API key that authenticates the principal, empty if another
// kind of credential does.
func (p *Principal) APIKeyID() uid.APIKey {
	if p == nil || p.Credential.Kind != KindAPIKey {
		return ""
	}
	return uid.APIKey(p.Credential.ID)
}

// May reports whether the principal's credential covers the scope, and its roles carry it.
func (p *Principal) May(s Scope) bool {
	return p != nil && p.Credential.Covers(s) && s.CarriedBy(p.Roles)
}

// MaySee reports whether the principal may read what belongs to the user.
func (p *Principal) MaySee(owner uid.User, s Scope) bool {
	return p.May(s) && (p.IsStaff() || p.Owns(owner))
}

// Equal reports whether two principals are the same.
func (p *Principal) Equal(other *Principal) bool {
	if p == nil || other == nil {
		return p == other
	}
	return p.UserID == other.UserID && slices.Equal(p.Roles, other.Roles) && p.Credential.Equal(other.Credential)
}

// Rights is equal for principals that may do the same with what belongs to other
// users or to none: those of the same roles and, if scopes limit their
// credentials, of the same scopes. It is a part of sharing keys.
func (p *Principal) Rights() string {
	switch {
	case p == nil:
		return ""
	case p.Credential.Unscoped():
		return fmt.Sprint("unscoped ", p.Roles)
	default:
		return fmt.Sprint("scoped ", p.Roles, p.Credential.Scopes)
	}
}

// MayAdministerUsers reports whether the principal may set roles and status, and delete the
// accounts of others: as ADMIN in a session, or by a key with the scope UsersAdmin.
func (p *Principal) MayAdministerUsers() bool { return p.mayAsAdmin(UsersAdmin) }

// MaySetLegacyID reports whether the principal may set the id that an object had
// in the former system.
func (p *Principal) MaySetLegacyID() bool { return p.mayAsAdmin(LegacyWrite) }

// MayManageService reports whether the principal may create and change the
// service of the name: as ADMIN, or by a key with its scope.
func (p *Principal) MayManageService(name string) bool { return p.mayAsAdmin(ServiceScope(name)) }

// mayAsAdmin reports whether the principal may do what an elevated scope grants:
// by a credential with the scope, or as ADMIN by an unscoped one.
func (p *Principal) mayAsAdmin(s Scope) bool { return p.IsUnscopedAdmin() || p.hasScope(s) }

// hasScope reports whether the credential lists the scope, and the roles carry it.
func (p *Principal) hasScope(s Scope) bool {
	return p != nil && slices.Contains(p.Credential.Scopes, s) && s.CarriedBy(p.Roles)
}

// MayUseServices reports whether the principal may see the whole of services,
// with the URLs of their instances, and call them: SERVICE, STAFF and ADMIN, and of
// their keys those with the scope ServicesRead or that of a service.
func (p *Principal) MayUseServices() bool {
	return (p.Has(Service) || p.IsStaff()) && p.MayCallServices()
}

// MayCallServices reports whether the principal may call services without
// learning their addresses: every signed-in user, and API keys with the scope
// ServicesRead or that of a service.
func (p *Principal) MayCallServices() bool {
	return p.May(ServicesRead) || p != nil && slices.ContainsFunc(p.Credential.Scopes, Scope.isService)
}

// AllowLegacyID refuses, at legacyId, a call that sets the id an object had in the
// former system, if the principal may not set it.
func (p *Principal) AllowLegacyID(sets bool) error {
	if sets && !p.MaySetLegacyID() {
		return fault.New(fault.Forbidden, "Only ADMIN or an API key with the scope %s may set a legacy id.", LegacyWrite).At("legacyId")
	}
	return nil
}

// Actor names the principal in the event log: the key's id for an API key, else
// the user's. It is empty for an anonymous caller and for the system.
func (p *Principal) Actor() string {
	if key := p.APIKeyID(); key != "" {
		return string(key)
	}
	if p == nil {
		return ""
	}
	return string(p.UserID)
}
