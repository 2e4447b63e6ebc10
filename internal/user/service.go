package user

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// PasswordHash is a password hash, made by package session, that a new account
// starts with; empty if it has no password yet.
type PasswordHash string

// Hasher makes the credential of a new account, whose names a password must not be made of. It is slow and
// is called only once everything else about the account is found right.
type Hasher func(ctx context.Context, names []string) (PasswordHash, error)

// OrderBy says how a list of users is sorted.
type OrderBy string

// The orders; ties are broken by id.
const (
	ByCreatedDesc  OrderBy = "CREATED_AT_DESC"
	ByCreatedAsc   OrderBy = "CREATED_AT_ASC"
	ByUsernameAsc  OrderBy = "USERNAME_ASC"
	ByUsernameDesc OrderBy = "USERNAME_DESC"
)

// Filter says which users a list shows. Nil fields filter nothing.
type Filter struct {
	IDs           []uid.User // if not nil, only these
	Status        *Status
	Username      *string // exactly this one, case aside
	Email         *string // exactly this one, case aside
	LegacyID      *string
	CreatedAfter  *time.Time // at or after
	CreatedBefore *time.Time // before
}

// Store persists accounts. It is declared here, where it is used.
//
// Methods that write return USERNAME_TAKEN, EMAIL_TAKEN or LEGACY_ID_TAKEN
// (Conflict) when a name is not free; a user name that is new to its account is not free either if CheckConfusable
// refuses it beside those of the accounts with STAFF or ADMIN as the transaction reads them. Their transaction makes the claim cl. For a
// duplicate call they return the account of the first, as it is now, and call no
// function.
type Store interface {
	// Create inserts the account with its credential and events.
	Create(ctx context.Context, cl claim.Claim, u *User, c PasswordHash) (*User, error)
	// Update loads the account under a lock, applies fn, and commits the result
	// with the events fn recorded, or nothing if fn fails or records none. fn may
	// run again after a conflict.
	Update(ctx context.Context, cl claim.Claim, id uid.User, fn func(*User) error) (*User, error)
	// UpdateCountingAdmins is Update for changes of roles and status and for deletion.
	// otherAdmins is the number of other active ADMINs, which stays true until the
	// commit. Of an account that fn deletes it also takes the credential away and
	// blanks what the log says of it.
	UpdateCountingAdmins(ctx context.Context, cl claim.Claim, id uid.User, fn func(u *User, otherAdmins int) error) (*User, error)
	// AnyAdmin reports whether there is an active ADMIN.
	AnyAdmin(ctx context.Context) (bool, error)
	// ByIDs returns the accounts that exist.
	ByIDs(ctx context.Context, ids []uid.User) (map[uid.User]*User, error)
	// ByUsername returns the account of that name, or NotFound.
	ByUsername(ctx context.Context, name string) (*User, error)
	// List returns a page of the accounts that match.
	List(ctx context.Context, f Filter, o OrderBy, args page.Args) (page.Page[*User], error)
	// Count returns how many accounts match.
	Count(ctx context.Context, f Filter) (int, error)
}

// Peeker is a Store that also holds accounts in the process.
type Peeker interface {
	// Peek returns the account as ByIDs would, at once; ok is false if it is not held.
	Peek(id uid.User) (u *User, ok bool)
}

// NameLimiter limits how often a user may ask for another user name or email address: the answer says
// whether another account has it.
type NameLimiter interface {
	// AllowNameChange counts a change by the user, from the address of the caller, or refuses it with
	// RATE_LIMITED.
	AllowNameChange(ctx context.Context, by uid.User) error
}

// Service is what callers may do with accounts. Methods that change one, but for SignUp, return
// nil in its place to a caller that may change accounts and not read them, also in VERSION_CONFLICT.
type Service struct {
	store   Store
	peeker  Peeker      // nil if the store holds nothing
	limiter NameLimiter // nil for no limit
	now     func() time.Time
}

// NewService returns a Service on the store; now is its clock. A nil limiter limits nothing.
func NewService(store Store, limiter NameLimiter, now func() time.Time) *Service {
	held, _ := store.(Peeker)
	return &Service{store, held, limiter, now}
}

// SignUp opens an account for an anonymous caller: a CUSTOMER.
func (s *Service) SignUp(ctx context.Context, p Profile, hash Hasher) (*User, error) {
	return s.createAccount(ctx, claim.None, p, []auth.Role{auth.Customer}, nil, hash)
}

// Create opens an account for another user. STAFF may create CUSTOMERs, callers that
// administer users all roles; a legacy id needs a caller that may set one. A nil hash makes an account
// that cannot sign in yet.
func (s *Service) Create(ctx context.Context, cl claim.Claim, p Profile, roles []auth.Role, legacyID *string, hash Hasher) (*User, error) {
	caller, err := auth.RequireStaff(ctx, auth.UsersWrite)
	if err != nil {
		return nil, err
	}
	if len(roles) == 0 {
		roles = []auth.Role{auth.Customer}
	}
	if !caller.MayAdministerUsers() && (len(roles) != 1 || roles[0] != auth.Customer) {
		return nil, errNeedsAdmin("Giving roles other than CUSTOMER").At("roles")
	}
	if err := caller.AllowLegacyID(legacyID != nil); err != nil {
		return nil, err
	}
	u, err := s.createAccount(ctx, cl, p, roles, legacyID, hash)
	return readable(caller, u), err
}

func (s *Service) createAccount(ctx context.Context, cl claim.Claim, p Profile, roles []auth.Role, legacyID *string, hash Hasher) (*User, error) {
	u, err := New(p, roles, legacyID, s.now())
	if err != nil {
		return nil, err
	}
	var c PasswordHash
	if hash != nil {
		if c, err = hash(ctx, u.Names()); err != nil {
			return nil, err
		}
	}
	return s.store.Create(ctx, cl, u, c)
}

// FirstAdmin opens an account for an ADMIN if there is no active one; created is
// false if there is. It needs no permission: it is for the start of a server, and
// safe when several start at once.
func (s *Service) FirstAdmin(ctx context.Context, username string, hash Hasher) (created bool, err error) {
	if found, err := s.store.AnyAdmin(ctx); found || err != nil {
		return false, err
	}
	_, err = s.createAccount(ctx, claim.None, Profile{Username: username}, []auth.Role{auth.Admin}, nil, hash)
	if fault.Is(err, CodeUsernameTaken) {
		if found, again := s.store.AnyAdmin(ctx); found || again != nil {
			return false, again // another node was faster
		}
	}
	return err == nil, err
}

// Update changes an account: the caller's own profile, as ADMIN that of any account, and as
// one that administers users also roles and status. RATE_LIMITED after too many other names, but for
// callers that may list the names of all.
func (s *Service) Update(ctx context.Context, cl claim.Claim, id uid.User, ifVersion *int, c Change) (*User, error) {
	caller, err := auth.Require(ctx, auth.UsersWrite)
	if err != nil {
		return nil, err
	}
	if err := s.mayChange(caller, id); err != nil {
		return nil, err
	}
	if c.NeedsAdmin() && !caller.MayAdministerUsers() {
		return nil, errNeedsAdmin("Setting roles and status")
	}
	if err := caller.AllowLegacyID(c.LegacyID.Set); err != nil {
		return nil, err
	}
	if err := s.limitNameChange(ctx, caller, id, c); err != nil {
		return nil, err
	}
	at := s.now()
	apply := func(u *User, otherAdmins int) error {
		if u.Status == Deleted {
			return NotFound()
		}
		if err := validate.IfVersion(ctx, ifVersion, u.Version, readable(caller, u)); err != nil {
			return err
		}
		return u.Apply(c, otherAdmins, at)
	}
	var u *User
	if c.NeedsAdmin() {
		u, err = s.store.UpdateCountingAdmins(ctx, cl, id, apply)
	} else {
		u, err = s.store.Update(ctx, cl, id, func(u *User) error { return apply(u, 0) })
	}
	return readable(caller, u), err
}

// limitNameChange counts a change that asks for a name which the account does not have already.
func (s *Service) limitNameChange(ctx context.Context, caller *auth.Principal, id uid.User, c Change) error {
	if s.limiter == nil || !c.Username.Set && (!c.Email.Set || c.Email.Value == nil) {
		return nil
	}
	if only, err := auth.RequireLister(ctx, auth.UsersRead); err == nil && only == nil {
		return nil
	}
	found, err := s.store.ByIDs(ctx, []uid.User{id})
	if err != nil {
		return err
	}
	if u := found[id]; u != nil && c.keepsNamesOf(u) {
		return nil
	}
	return s.limiter.AllowNameChange(ctx, caller.UserID)
}

// Delete deletes an account: the caller's own in a session, or any as one that administers
// users. Deleting a deleted account does nothing.
func (s *Service) Delete(ctx context.Context, cl claim.Claim, id uid.User, ifVersion *int) (*User, error) {
	caller, err := auth.Require(ctx, auth.UsersWrite)
	if err != nil {
		return nil, err
	}
	if err := s.mayChange(caller, id); err != nil {
		return nil, err
	}
	if ownSession := caller.Owns(id) && caller.Credential.Unscoped(); !ownSession && !caller.MayAdministerUsers() {
		return nil, errNeedsAdmin("Deleting a user by an API key")
	}
	at := s.now()
	u, err := s.store.UpdateCountingAdmins(ctx, cl, id, func(u *User, otherAdmins int) error {
		if u.Status != Deleted {
			if err := validate.IfVersion(ctx, ifVersion, u.Version, readable(caller, u)); err != nil {
				return err
			}
		}
		return u.Delete(otherAdmins, at)
	})
	return readable(caller, u), err
}

func readable(caller *auth.Principal, u *User) *User { return auth.Readable(caller, auth.UsersRead, u) }

// ByIDs returns those of the accounts that exist and that the caller may see.
func (s *Service) ByIDs(ctx context.Context, ids []uid.User) (map[uid.User]*User, error) {
	found, err := s.store.ByIDs(ctx, visibleIDs(auth.From(ctx), ids))
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Peek answers for one account as ByIDs does, without I/O: nil if it is hidden
// from the caller. ok is false if that takes I/O.
func (s *Service) Peek(ctx context.Context, id uid.User) (u *User, ok bool) {
	switch {
	case !isVisible(auth.From(ctx), id):
		return nil, true
	case s.peeker == nil:
		return nil, false
	}
	return s.peeker.Peek(id)
}

// Deleted returns which of the accounts are deleted, without regard to the caller in ctx.
func (s *Service) Deleted(ctx context.Context, ids []uid.User) (map[uid.User]bool, error) {
	found, err := s.store.ByIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	deleted := make(map[uid.User]bool, len(found))
	for id, u := range found {
		deleted[id] = u.Status == Deleted
	}
	return deleted, nil
}

// PeekDeleted answers for one account as Deleted does, without I/O. ok is false if that takes I/O.
func (s *Service) PeekDeleted(_ context.Context, id uid.User) (deleted, ok bool) {
	if s.peeker == nil {
		return false, false
	}
	u, ok := s.peeker.Peek(id)
	return ok && u != nil && u.Status == Deleted, ok
}

// Self returns the account of a user that was authenticated a moment ago, without
// regard to the caller in ctx; NotFound if there is none.
func (s *Service) Self(ctx context.Context, id uid.User) (*User, error) {
	found, err := s.store.ByIDs(ctx, []uid.User{id})
	if err != nil {
		return nil, err
	}
	if found[id] == nil {
		return nil, NotFound()
	}
	return found[id], nil
}

// ByUsername returns the account of that name, or NotFound if there is none or
// it is hidden from the caller.
func (s *Service) ByUsername(ctx context.Context, name string) (*User, error) {
	u, err := s.store.ByUsername(ctx, name)
	if err != nil {
		return nil, err
	}
	if !auth.From(ctx).MaySee(u.ID, auth.UsersRead) {
		return nil, NotFound()
	}
	return u, nil
}

// List returns a page of the accounts that the caller may see: STAFF and ADMIN
// all, others their own.
func (s *Service) List(ctx context.Context, f Filter, o OrderBy, args page.Args) (page.Page[*User], error) {
	f, err := narrowToVisible(ctx, f)
	if err != nil {
		return page.Page[*User]{}, err
	}
	return s.store.List(ctx, f, o, args)
}

// Count returns how many accounts List would show on all its pages.
func (s *Service) Count(ctx context.Context, f Filter) (int, error) {
	f, err := narrowToVisible(ctx, f)
	if err != nil {
		return 0, err
	}
	return s.store.Count(ctx, f)
}

// narrowToVisible narrows a filter to what the caller may see.
func narrowToVisible(ctx context.Context, f Filter) (Filter, error) {
	only, err := auth.RequireLister(ctx, auth.UsersRead)
	if only != nil {
		f.IDs = []uid.User{*only}
	}
	return f, err
}

func visibleIDs(caller *auth.Principal, ids []uid.User) []uid.User {
	var seen []uid.User
	for _, id := range ids {
		if isVisible(caller, id) {
			seen = append(seen, id)
		}
	}
	return seen
}

func isVisible(caller *auth.Principal, id uid.User) bool {
	return id.Valid() && caller.MaySee(id, auth.UsersRead)
}

// errNeedsAdmin is the error for what a caller may not do that does not administer users.
func errNeedsAdmin(what string) *fault.Error {
	return fault.New(fault.Forbidden, "%s needs ADMIN in a session, or an API key of ADMIN with the scope %s.", what, auth.UsersAdmin)
}

// mayChange refuses an account that is not the caller's to change: as absent if
// it is hidden from the caller, else as forbidden.
func (s *Service) mayChange(caller *auth.Principal, id uid.User) error {
	switch {
	case !id.Valid() || !caller.IsStaff() && !caller.Owns(id):
		return NotFound()
	case !caller.Owns(id) && !caller.Has(auth.Admin):
		return fault.New(fault.Forbidden, "Only ADMIN may change the accounts of others.")
	}
	return nil
}
