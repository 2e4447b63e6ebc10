// Package user owns accounts: their names, email addresses, roles and status.
//
// The rules are methods on User. Service adds permission, clock and
// persistence. Passwords and tokens belong to package session. A deleted account
// stays as a row without personal data, so that what refers to it stays readable.
package user

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Status says whether an account may act.
type Status string

// The states of an account.
const (
	Active      Status = "ACTIVE"
	Deactivated Status = "DEACTIVATED" // may not sign in until an ADMIN reactivates it
	Deleted     Status = "DELETED"     // for good; its personal data is gone
)

// Limits of text, in characters.
const (
	maxUsername = 64
	maxEmail    = 254 // RFC 5321
	maxName     = 200
)

// deletedPrefix starts the stand-in names of deleted accounts. SignUp refuses
// it.
const deletedPrefix = "deleted-"

// User is an account.
type User struct {
	ID        uid.User
	Username  string  // as its owner spells it; unique by UsernameKey
	Email     *string // unique by EmailKey; nil if never given or deleted
	Name      string  // full name of the person; may be empty
	Roles     []auth.Role
	Status    Status
	LegacyID  *string // its id in the former system
	Version   int     // raised by each change
	CreatedAt time.Time
	UpdatedAt time.Time
	events    event.Recorder
}

// Names returns the names of the account: user name, email address and name, without those that it lacks.
func (u *User) Names() []string {
	return Profile{Username: u.Username, Email: u.Email, Name: u.Name}.Names()
}

// Profile is what a user may change of its own account.
type Profile struct {
	Username string
	Email    *string
	Name     string
	Invalid  error // mistakes that reading the input has found; reported with those of the rules
}

// Names returns the names of an account with the profile, see User.Names.
func (p Profile) Names() []string {
	names := []string{p.Username}
	if p.Email != nil {
		names = append(names, *p.Email)
	}
	if p.Name != "" {
		names = append(names, p.Name)
	}
	return names
}

// New returns a new active account and records user.created. Roles must not be
// empty and may hold no role twice.
func New(p Profile, roles []auth.Role, legacyID *string, at time.Time) (*User, error) {
	u := &User{ID: uid.NewUser(at), Status: Active, Version: 1, CreatedAt: at, UpdatedAt: at}
	if err := errors.Join(u.setProfile(p), u.setRoles(roles), u.setLegacyID(legacyID), p.Invalid, u.checkReserved("")); err != nil {
		return nil, err
	}
	u.recordEvent(EventUserCreated, at)
	return u, nil
}

// Change is an update of an account. Fields that are not set stay.
type Change struct {
	Username validate.Field[string]
	Email    validate.Field[*string]
	Name     validate.Field[string]
	Roles    validate.Field[[]auth.Role]
	Status   validate.Field[Status] // Active or Deactivated
	LegacyID validate.Field[*string]
	Invalid  error // mistakes that reading the input has found; reported with those of the rules
}

// NeedsAdmin reports whether the change touches what only a caller that administers users may set.
func (c Change) NeedsAdmin() bool { return c.Roles.Set || c.Status.Set }

// keepsNamesOf reports whether the account has the user name and email address of the change already.
func (c Change) keepsNamesOf(u *User) bool {
	sameEmail := c.Email.Value == nil || u.Email != nil && *c.Email.Value == *u.Email
	return (!c.Username.Set || c.Username.Value == u.Username) && (!c.Email.Set || sameEmail)
}

// Apply applies the change and records user.updated, or does nothing if nothing
// would change. otherAdmins is the number of other active ADMINs; it counts
// only if the change takes the role or the right to act away.
func (u *User) Apply(c Change, otherAdmins int, at time.Time) error {
	if u.Status == Deleted {
		return NotFound()
	}
	before := *u
	p := Profile{Username: u.Username, Email: u.Email, Name: u.Name}
	if c.Username.Set {
		p.Username = c.Username.Value
	}
	if c.Email.Set {
		p.Email = c.Email.Value
	}
	if c.Name.Set {
		p.Name = c.Name.Value
	}
	errs := []error{u.setProfile(p)}
	if c.Roles.Set {
		errs = append(errs, u.setRoles(c.Roles.Value))
	}
	if c.Status.Set {
		errs = append(errs, u.setStatus(c.Status.Value))
	}
	if c.LegacyID.Set {
		errs = append(errs, u.setLegacyID(c.LegacyID.Value))
	}
	if err := errors.Join(append(errs, c.Invalid, u.checkReserved(before.Username))...); err != nil {
		return err
	}
	if before.isActiveAdmin() && !u.isActiveAdmin() && otherAdmins == 0 {
		return errLastAdmin()
	}
	if u.equalTo(&before) {
		return nil
	}
	u.bumpVersion(at)
	u.recordEvent(event.UserUpdated, at)
	return nil
}

// Delete takes all personal data away and records user.deleted; on a deleted
// account it does nothing. The last active ADMIN cannot be deleted.
func (u *User) Delete(otherAdmins int, at time.Time) error {
	if u.Status == Deleted {
		return nil
	}
	if u.isActiveAdmin() && otherAdmins == 0 {
		return errLastAdmin()
	}
	_, suffix, _ := strings.Cut(string(u.ID), "_")
	u.Username, u.Email, u.Name, u.LegacyID = deletedPrefix+suffix, nil, "", nil
	u.Roles, u.Status = []auth.Role{auth.Customer}, Deleted
	u.bumpVersion(at)
	u.recordEvent(event.UserDeleted, at)
	return nil
}

// UsernameKey returns what makes a user name unique: case and the ways to
// compose a character do not count.
func UsernameKey(name string) string { return cases.Fold().String(norm.NFKC.String(name)) }

// EmailKey returns what makes an email address unique: case does not count.
func EmailKey(email string) string { return strings.ToLower(norm.NFC.String(email)) }

// TakeEvents returns the events recorded since the last call.
func (u *User) TakeEvents() []event.Event { return u.events.Take() }

// NotFound is the error for an account that is absent or hidden: one error, so
// that ids cannot be probed.
func NotFound() *fault.Error {
	return fault.New(fault.UserNotFound, "There is no such user.").At("id")
}

func errLastAdmin() error {
	return fault.New(CodeLastAdmin, "This is the last active ADMIN; make another one first.")
}

func (u *User) isActiveAdmin() bool {
	return u.Status == Active && slices.Contains(u.Roles, auth.Admin)
}

func (u *User) setProfile(p Profile) error {
	name, errUsername := normalizeUsername(p.Username)
	if p.Username == u.Username && u.Username != "" {
		errUsername = nil // what is stored stays acceptable
	}
	var errEmail, errName error
	if p.Email != nil {
		errEmail = checkEmail(*p.Email)
	}
	if p.Name != "" && p.Name != u.Name {
		p.Name, errName = validate.Line("name", p.Name, maxName)
	}
	if err := errors.Join(errUsername, errEmail, errName); err != nil {
		return err
	}
	u.Username, u.Email, u.Name = name, p.Email, p.Name
	return nil
}

func normalizeUsername(s string) (string, error) {
	s = norm.NFC.String(strings.TrimSpace(s))
	bad := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) && !strings.ContainsRune(" ._-'", r)
	}
	_, ours := uid.KindOf(s)
	switch {
	case s == "" || len([]rune(s)) > maxUsername:
		return s, errUsername("it must be 1 to %d characters long", maxUsername)
	case strings.ContainsFunc(s, bad):
		return s, errUsername("it may hold letters, digits, spaces and . _ - ' only")
	case strings.ContainsFunc(s, isInvisible):
		return s, errUsername("it holds an invisible character")
	case mixesAlphabets(s):
		return s, errUsername("it mixes letters of alphabets that look alike")
	case strings.ContainsFunc(s, isPhonetic):
		return s, errUsername("it holds a phonetic letter that looks like another one")
	case ours || strings.HasPrefix(UsernameKey(s), deletedPrefix):
		return s, errUsername("it is reserved")
	}
	return s, nil
}

// isInvisible reports whether the letter or mark shows nothing, so that two names with and
// without it look the same.
func isInvisible(r rune) bool {
	return unicode.Is(unicode.Variation_Selector, r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// lookalikes are the alphabets whose letters are taken for one another: one of them in a name
// of another makes a duplicate that readers do not notice.
var lookalikes = []*unicode.RangeTable{unicode.Latin, unicode.Greek, unicode.Cyrillic, unicode.Armenian, unicode.Cherokee, unicode.Coptic, unicode.Lisu}

func mixesAlphabets(s string) bool {
	used := 0
	for _, alphabet := range lookalikes {
		if strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(alphabet, r) }) {
			used++
		}
	}
	return used > 1
}

// phonetic are Latin letters of no language that look like others: small capitals, and the g and insular letters
// of phoneticians and printers. Folding leaves them as they are.
var phonetic = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x0261, Hi: 0x0262, Stride: 1}, {Lo: 0x0274, Hi: 0x0274, Stride: 1}, {Lo: 0x0280, Hi: 0x0280, Stride: 1}, {Lo: 0x0299, Hi: 0x0299, Stride: 1},
	{Lo: 0x029C, Hi: 0x029C, Stride: 1}, {Lo: 0x029F, Hi: 0x029F, Stride: 1}, {Lo: 0x1D00, Hi: 0x1D2B, Stride: 1}, {Lo: 0xA730, Hi: 0xA731, Stride: 1}, {Lo: 0xA779, Hi: 0xA787, Stride: 1},
}}

func isPhonetic(r rune) bool { return unicode.Is(phonetic, r) }

func errUsername(format string, args ...any) error {
	return fault.New(CodeUsernameInvalid, "This user name cannot be used: "+format+".", args...).At("username")
}

// checkEmail asks for what every deliverable address has; only a message sent
// to it can prove more.
func checkEmail(s string) error {
	local, domain, ok := strings.Cut(s, "@")
	odd := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar }
	if !ok || local == "" || !strings.Contains(domain, ".") || strings.Contains(domain, "@") ||
		strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") || len(s) > maxEmail || strings.ContainsFunc(s, odd) {
		return fault.New(CodeEmailInvalid, "This is not an email address.").At("email")
	}
	return nil
}

func (u *User) setRoles(roles []auth.Role) error {
	sorted := make([]auth.Role, 0, len(roles))
	for _, r := range auth.Roles() {
		if slices.Contains(roles, r) {
			sorted = append(sorted, r)
		}
	}
	if len(sorted) == 0 || len(sorted) != len(roles) {
		return fault.New(fault.BadInput, "Give at least one role, and each only once.").At("roles")
	}
	u.Roles = sorted
	return nil
}

func (u *User) setStatus(s Status) error {
	if s != Active && s != Deactivated {
		return fault.New(fault.BadInput, "A status can be set to ACTIVE or DEACTIVATED; use deleteUser to delete.").At("status")
	}
	u.Status = s
	return nil
}

func (u *User) setLegacyID(legacyID *string) error {
	if err := validate.OptionalLegacyID(legacyID); err != nil {
		return err
	}
	u.LegacyID = legacyID
	return nil
}

func (u *User) equalTo(o *User) bool {
	return u.Username == o.Username && u.Name == o.Name && u.Status == o.Status && slices.Equal(u.Roles, o.Roles) &&
		equalText(u.Email, o.Email) && equalText(u.LegacyID, o.LegacyID)
}

func equalText(a, b *string) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func (u *User) bumpVersion(at time.Time) { u.Version, u.UpdatedAt = u.Version+1, at }

// snapshot is the account as its events show it.
type snapshot struct {
	Username string      `json:"username"`
	Email    *string     `json:"email"`
	Name     string      `json:"name"`
	Roles    []auth.Role `json:"roles"`
	Status   Status      `json:"status"`
	LegacyID *string     `json:"legacyId"`
}

func (u *User) recordEvent(t event.Type, at time.Time) {
	u.events.Record(t, string(u.ID), u.Version, snapshot{u.Username, u.Email, u.Name, u.Roles, u.Status, u.LegacyID}, at)
}
