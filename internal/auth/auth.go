// Package auth carries the authenticated caller in the context: its principal, with
// roles and credential.
//
// Domains call it for authorization. How a caller authenticates is left to package
// session.
package auth

import (
	"context"
	"net/netip"
	"slices"
	"strings"
)

// Role is a set of rights of a user, be it a person or a program.
type Role string

// The roles.
const (
	Customer Role = "CUSTOMER" // orders for itself
	Staff    Role = "STAFF"    // sees everything, runs the shop
	Admin    Role = "ADMIN"    // may also set roles, status and legacy ids
	Service  Role = "SERVICE"  // a program behind the registry
)

// Roles returns every role, in the order in which they are stored and shown.
func Roles() []Role { return []Role{Customer, Staff, Admin, Service} }

// Scope narrows what an API key may do below the roles of its owner. A session
// has every scope but those that are Elevated, which ADMIN has instead.
type Scope string

// The scopes.
const (
	UsersRead     Scope = "users:read"
	UsersWrite    Scope = "users:write"
	ProductsWrite Scope = "products:write"
	OrdersRead    Scope = "orders:read"
	OrdersWrite   Scope = "orders:write"
	ServicesRead  Scope = "services:read" // to see services whole, pick instances and report outcomes
	LegacyWrite   Scope = "legacy:write"  // grants what otherwise only ADMIN may do: setting a legacyId
	UsersAdmin    Scope = "users:admin"   // for keys of ADMIN: roles and status of users, and deleting them
)

// Scopes returns every scope but those of single services, see ServiceScope.
func Scopes() []Scope {
	return []Scope{UsersRead, UsersWrite, ProductsWrite, OrdersRead, OrdersWrite, ServicesRead, LegacyWrite, UsersAdmin}
}

const servicePrefix = "service:"

// ServiceScope returns the scope by which an API key may create and manage the
// service of the name, and use others. It grants what otherwise only ADMIN may do.
func ServiceScope(name string) Scope { return Scope(servicePrefix + name) }

// Service returns the name of the service that the scope is for; ok is false for
// scopes that ServiceScope did not make.
func (s Scope) Service() (name string, ok bool) {
	return strings.CutPrefix(string(s), servicePrefix)
}

func (s Scope) isService() bool { return strings.HasPrefix(string(s), servicePrefix) }

// Elevated reports whether the scope grants what otherwise only ADMIN may do, so
// that only ADMIN may grant it.
func (s Scope) Elevated() bool { return s.isService() || s == LegacyWrite || s == UsersAdmin }

// CarriedBy reports whether a key of a user with the roles may use the scope. An elevated
// scope holds while its owner is ADMIN; those that are for programs also while it is SERVICE.
// So a key never does more than the roles that its owner has now.
func (s Scope) CarriedBy(roles []Role) bool {
	switch {
	case !s.Elevated() || slices.Contains(roles, Admin):
		return true
	case s == UsersAdmin:
		return false
	default:
		return slices.Contains(roles, Service)
	}
}

// Client is where a call comes from.
type Client struct {
	Address   string // IP address, without port
	UserAgent string // as sent, at most 256 bytes
}

// Network returns what counts as one address where callers are limited by it: of IPv6 the /64,
// since a client that has one address of it has them all. Unknown origins count as one.
func (c Client) Network() string {
	a, err := netip.ParseAddr(c.Address)
	if err != nil {
		return c.Address
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64) // 64 bits always fit
	return p.String()
}

type clientKey struct{}

// WithClient returns a context that says where the call comes from.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientFrom returns where the call comes from; zero without WithClient.
func ClientFrom(ctx context.Context) Client {
	c, _ := ctx.Value(clientKey{}).(Client)
	return c
}
