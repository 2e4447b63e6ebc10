// Package auth owns who is calling: the principal and what it may do, carried
// in the context, and the call's idempotency key beside it.
//
// Domains ask; nothing here knows how a principal proved itself.
package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Role is a set of rights that a person or a program holds.
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
// has every scope but LegacyWrite, which ADMIN has instead.
type Scope string

// The scopes.
const (
	UsersRead     Scope = "users:read"
	UsersWrite    Scope = "users:write"
	ProductsWrite Scope = "products:write"
	OrdersRead    Scope = "orders:read"
	OrdersWrite   Scope = "orders:write"
	ServicesRead  Scope = "services:read" // to see services whole, pick instances and report outcomes
	LegacyWrite   Scope = "legacy:write"  // grants what else only ADMIN may: setting a legacyId
)

// Scopes returns every scope but those of single services, see ServiceScope.
func Scopes() []Scope {
	return []Scope{UsersRead, UsersWrite, ProductsWrite, OrdersRead, OrdersWrite, ServicesRead, LegacyWrite}
}

const servicePrefix = "service:"

// ServiceScope returns the scope that lets a key create and manage the service
// of the name, and use others. It grants what else only ADMIN may.
func ServiceScope(name string) Scope { return Scope(servicePrefix + name) }

// Service returns the name of the service that the scope is for; ok is false if
// it is none of ServiceScope.
func (s Scope) Service() (name string, ok bool) {
	return strings.CutPrefix(string(s), servicePrefix)
}

// Elevated reports whether the scope grants what else only ADMIN may, so that
// only ADMIN may give it.
func (s Scope) Elevated() bool {
	_, service := s.Service()
	return service || s == LegacyWrite
}

// Principal is an authenticated caller. It is immutable.
type Principal struct {
	UserID    uid.User
	SessionID uid.Session // of a session, else empty
	KeyID     uid.APIKey  // of an API key, else empty
	Roles     []Role
	Scopes    []Scope // of an API key
}

// Has reports whether the principal holds the role.
func (p *Principal) Has(r Role) bool { return p != nil && slices.Contains(p.Roles, r) }

// IsStaff reports whether the principal may see what belongs to others.
func (p *Principal) IsStaff() bool { return p.Has(Staff) || p.Has(Admin) }

// Owns reports whether what belongs to the user belongs to the principal.
func (p *Principal) Owns(id uid.User) bool { return p != nil && p.UserID != "" && p.UserID == id }

// May reports whether the principal's credential covers the scope.
func (p *Principal) May(s Scope) bool {
	if p == nil {
		return false
	}
	return p.KeyID == "" || slices.Contains(p.Scopes, s)
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
	return p.UserID == other.UserID && p.SessionID == other.SessionID && p.KeyID == other.KeyID &&
		slices.Equal(p.Roles, other.Roles) && slices.Equal(p.Scopes, other.Scopes)
}

// Rights is equal for principals that may do the same with what belongs to
// nobody, or to others: those of the same roles, and of the same scopes if they
// are API keys.
func (p *Principal) Rights() string {
	if p == nil {
		return ""
	}
	if p.KeyID == "" {
		return fmt.Sprint("session ", p.Roles)
	}
	return fmt.Sprint("key ", p.Roles, p.Scopes)
}

// MaySetLegacyID reports whether the principal may say which id an object had
// in the system before.
func (p *Principal) MaySetLegacyID() bool {
	if p == nil {
		return false
	}
	if p.KeyID != "" {
		return slices.Contains(p.Scopes, LegacyWrite)
	}
	return p.Has(Admin)
}

// MayManageService reports whether the principal may create and change the
// service of the name: as ADMIN, or by a key with its scope.
func (p *Principal) MayManageService(name string) bool {
	if p == nil {
		return false
	}
	if p.KeyID != "" {
		return slices.Contains(p.Scopes, ServiceScope(name))
	}
	return p.Has(Admin)
}

// MayUseServices reports whether the principal may see the whole of services,
// with the URLs of their instances, and call them: SERVICE, STAFF and ADMIN, and of
// their keys those that are for that or are a service's own.
func (p *Principal) MayUseServices() bool {
	if !p.Has(Service) && !p.IsStaff() {
		return false
	}
	return p.MayCallServices()
}

// MayCallServices reports whether the principal may call services without being
// told where they are: whoever is signed in, and of API keys those that are for that or
// are a service's own.
func (p *Principal) MayCallServices() bool {
	return p.May(ServicesRead) || p != nil && slices.ContainsFunc(p.Scopes, func(s Scope) bool { _, ok := s.Service(); return ok })
}

// AllowLegacyID refuses, at legacyId, a call that sets which id an object had in the
// system before, if the principal may not say so.
func (p *Principal) AllowLegacyID(sets bool) error {
	if sets && !p.MaySetLegacyID() {
		return fault.New(fault.Forbidden, fault.AccessDenied, "Only ADMIN or an API key with the scope %s may set a legacy id.", LegacyWrite).At("legacyId")
	}
	return nil
}

// Actor names the principal in the event log: the key's id for an API key, else
// the user's. It is empty for nobody.
func (p *Principal) Actor() string {
	switch {
	case p == nil:
		return ""
	case p.KeyID != "":
		return string(p.KeyID)
	default:
		return string(p.UserID)
	}
}

type principalKey struct{}

// With returns a context in which p is calling.
func With(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// WithCurrent returns a context in which whoever current names is calling at the
// moment somebody asks: what outlives a request must not go by the rights that
// its caller had at the start. Current must be cheap and safe for concurrent use.
func WithCurrent(ctx context.Context, current func() *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, current)
}

// Current returns what tells who is calling at the moment it is called, as From
// does, for those who ask often.
func Current(ctx context.Context) func() *Principal {
	switch p := ctx.Value(principalKey{}).(type) {
	case *Principal:
		return func() *Principal { return p }
	case func() *Principal:
		return p
	}
	return func() *Principal { return nil }
}

// From returns who is calling, or nil for a stranger. Under WithCurrent two
// calls may return different principals.
func From(ctx context.Context) *Principal {
	switch p := ctx.Value(principalKey{}).(type) {
	case *Principal:
		return p
	case func() *Principal:
		return p()
	}
	return nil
}

// WithLastKnown returns a context in which nobody is calling whose rights are
// known for sure: p was calling when they could last be read. Only what goes on
// without the database asks for it, by LastKnown; to everything else the caller
// is told to come again.
func WithLastKnown(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, lastKnown{p})
}

type lastKnown struct{ *Principal }

// LastKnown returns who is calling or, if that cannot be told without the
// database, who was at last; nil for a stranger. It is for reads that are to go
// on from the last known state, and for nothing that changes anything.
func LastKnown(ctx context.Context) *Principal {
	if p, ok := ctx.Value(principalKey{}).(lastKnown); ok {
		return p.Principal
	}
	return From(ctx)
}

// Require returns who is calling if its credential covers the scope, else an
// Unauthenticated or Forbidden error.
func Require(ctx context.Context, s Scope) (*Principal, error) {
	p := From(ctx)
	if p == nil {
		return nil, SignInFirst(ctx)
	}
	if !p.May(s) {
		return nil, fault.New(fault.Forbidden, fault.AccessDenied, "This API key lacks the scope %s.", s)
	}
	return p, nil
}

// RequireSession returns who is calling if it signed in with a password: what
// changes credentials is not open to API keys.
func RequireSession(ctx context.Context) (*Principal, error) {
	p := From(ctx)
	if p == nil {
		return nil, SignInFirst(ctx)
	}
	if p.SessionID == "" {
		return nil, fault.New(fault.Forbidden, fault.AccessDenied, "This needs a signed-in session; an API key is not enough.")
	}
	return p, nil
}

// RequireStaff returns who is calling if it is STAFF or ADMIN and its
// credential covers the scope.
func RequireStaff(ctx context.Context, s Scope) (*Principal, error) {
	return requireRole(ctx, s, "This needs the role STAFF or ADMIN.", (*Principal).IsStaff)
}

// RequireAdmin returns who is calling if it is ADMIN and its credential covers
// the scope.
func RequireAdmin(ctx context.Context, s Scope) (*Principal, error) {
	return requireRole(ctx, s, "This needs the role ADMIN.", func(p *Principal) bool { return p.Has(Admin) })
}

// RequireLister returns whose things the caller may list, if its credential covers
// the scope: nil for everybody's, as STAFF and ADMIN may, else only its own.
func RequireLister(ctx context.Context, s Scope) (only *uid.User, err error) {
	p, err := Require(ctx, s)
	if err != nil || p.IsStaff() {
		return nil, err
	}
	return &p.UserID, nil
}

func requireRole(ctx context.Context, s Scope, refusal string, ok func(*Principal) bool) (*Principal, error) {
	p, err := Require(ctx, s)
	if err != nil {
		return nil, err
	}
	if !ok(p) {
		return nil, fault.New(fault.Forbidden, fault.AccessDenied, "%s", refusal)
	}
	return p, nil
}

// SignInFirst is the error for a stranger; for a caller whose rights cannot be
// told at the moment it is UNAVAILABLE.
func SignInFirst(ctx context.Context) error {
	if LastKnown(ctx) != nil {
		return fault.New(fault.Unavailable, fault.ServiceUnavailable, "Credentials cannot be checked right now; try again in a moment.")
	}
	return fault.New(fault.Unauthenticated, fault.Unauthorized, "Sign in first.")
}

// Client is where a call comes from.
type Client struct {
	Address   string // IP address, without port
	UserAgent string // as sent, at most 256 bytes
}

type clientKey struct{}

// WithClient returns a context that says where the call comes from.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientFrom returns where the call comes from; zero if nobody said.
func ClientFrom(ctx context.Context) Client {
	c, _ := ctx.Value(clientKey{}).(Client)
	return c
}

// Call is the identity of one mutation: two calls of one principal with equal
// keys and fingerprints are one call, made twice.
type Call struct {
	Key         string   // chosen by the client, 1 to 200 printable ASCII characters
	Fingerprint [32]byte // HMAC of mutation name and coerced input
}

type callKey struct{}

// WithCall returns a context whose next transaction claims the call.
func WithCall(ctx context.Context, c Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallFrom returns the call to claim; ok is false if the client gave no key or
// nobody is signed in.
func CallFrom(ctx context.Context) (c Call, ok bool) {
	c, ok = ctx.Value(callKey{}).(Call)
	return c, ok && From(ctx) != nil
}
