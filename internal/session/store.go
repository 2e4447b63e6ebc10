package session

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/session/throttle"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Store persists what this package owns. It is declared here, where it is used,
// in parts that can be read one at a time; one type implements them all.
//
// Each method is one transaction. Rows given to a function are locked until the
// commit, and the function may run again after a conflict, on fresh rows; it
// does no I/O. If it fails nothing is stored and its error is returned as it is.
// What a function recorded (TakeEvents) commits with the rows it changed.
// The transaction of a method that takes a claim makes it. For a duplicate call the
// method calls no function and returns nil, with the object as it is now. Opening a
// session, refreshing one and creating a key claim nothing.
type Store interface {
	Accounts
	Sessions
	Keys
	token.KeyStore
	throttle.Store
}

// Account is what this package needs to know of a user.
type Account struct {
	UserID          uid.User
	Active          bool // its status is ACTIVE
	Roles           []auth.Role
	PasswordHash    string // as HashPassword made it; empty if the account has no password
	PasswordVersion int    // raised by each change of the password, but not by a new hash of the same; 0 if none
}

// AccountSessions is an account with its live sessions, as one unit of change.
type AccountSessions struct {
	Account
	Sessions []*Session // neither revoked nor expired, by id, so the oldest comes first
	Opened   *Session   // to be inserted; nil for none
	Security []security.Event
}

// TakeEvents returns the events recorded on the sessions since the last call.
func (h *AccountSessions) TakeEvents() []event.Event {
	var all []event.Event
	for _, s := range h.Sessions {
		all = append(all, s.TakeEvents()...)
	}
	return all
}

// Accounts reads accounts and changes their passwords and credentials.
type Accounts interface {
	// AccountByLogin returns the account with that email address if login holds an
	// "@", else the account with that user name, by the rules of uniqueness of
	// either. NotFound, USER_NOT_FOUND, if there is none.
	AccountByLogin(ctx context.Context, login string) (*Account, error)
	// AccountByID returns the account, or NotFound, USER_NOT_FOUND.
	AccountByID(ctx context.Context, id uid.User) (*Account, error)
	// AccountNames returns the user name of the account, and its email address and name if
	// it has them, or NotFound, USER_NOT_FOUND.
	AccountNames(ctx context.Context, id uid.User) ([]string, error)
	// UpdateAccountSessions locks the account, then its sessions that are live at the
	// given time by id, applies fn, and commits PasswordHash and PasswordVersion, the
	// sessions whose Version fn raised, the session Opened, the events and the security events.
	// NotFound, USER_NOT_FOUND, if there is no such account; fn decides about one
	// that is not active. Roles and Active are not written.
	UpdateAccountSessions(ctx context.Context, cl claim.Claim, id uid.User, at time.Time, fn func(*AccountSessions) error) error
	// UpdateCredentials locks the account, then its sessions and its keys that are
	// live at the given time, each by id, applies fn, and commits PasswordHash and
	// PasswordVersion, the sessions and keys whose Version fn raised, the events and the security events.
	// NotFound, USER_NOT_FOUND, if there is no such account; fn decides about one that
	// is not active.
	UpdateCredentials(ctx context.Context, cl claim.Claim, id uid.User, at time.Time, fn func(*Credentials) error) error
}

// Sessions reads and changes sessions.
type Sessions interface {
	// UpdateSession locks the session, applies fn and commits the result with its
	// events; if fn left Version alone nothing is written. NotFound,
	// SESSION_NOT_FOUND, if there is none.
	UpdateSession(ctx context.Context, cl claim.Claim, id uid.Session, fn func(*Session) error) (*Session, error)
	// SessionWithAccount returns a session and its account as of one moment, in one
	// statement: every request of a session reads this, at most once a second and
	// node. NotFound, SESSION_NOT_FOUND, if there is none.
	SessionWithAccount(ctx context.Context, id uid.Session) (*Session, *Account, error)
	// SessionsByIDs returns the sessions that exist.
	SessionsByIDs(ctx context.Context, ids []uid.Session) (map[uid.Session]*Session, error)
	// LiveSessions returns sessions of the user that are live at the given time, the
	// one used last first, at most limit of them.
	LiveSessions(ctx context.Context, user uid.User, at time.Time, limit int) ([]*Session, error)
	// Sweep removes at most limit sessions and API keys that ended, by revocation or expiry,
	// before ended, and at most limit counters whose window ended before now. It
	// returns how many rows it removed and records no events.
	Sweep(ctx context.Context, ended, now time.Time, limit int) (int, error)
}

// Keys reads and changes API keys.
type Keys interface {
	// AnnounceExpiring calls AnnounceExpiry for at most limit keys that are live now, end by the time before and were
	// not announced, commits them with their events, and returns how many there were. It passes over rows that others hold.
	AnnounceExpiring(ctx context.Context, now, before time.Time, limit int) (int, error)
	// ExpiringKeys returns the keys that are live now and end by the time before, the first to end first, at most
	// limit of them, and how many there are; page.MaxCount+1 stands for all numbers above page.MaxCount.
	ExpiringKeys(ctx context.Context, now, before time.Time, limit int) ([]*APIKey, int, error)
	// CreateKey locks the account of the key's owner, counts its keys that are live
	// at the given time, calls allow, and inserts the key with its events.
	// NotFound, USER_NOT_FOUND, if there is no such account.
	CreateKey(ctx context.Context, k *APIKey, at time.Time, allow func(owner *Account, live int) error) error
	// UpdateKey locks the key, applies fn and commits the result with its events;
	// if fn left Version alone nothing is written. LastUsedAt is not written.
	// NotFound, API_KEY_NOT_FOUND, if there is none.
	UpdateKey(ctx context.Context, cl claim.Claim, id uid.APIKey, fn func(*APIKey) error) (*APIKey, error)
	// KeyWithAccount is SessionWithAccount for an API key: API_KEY_NOT_FOUND if there
	// is none.
	KeyWithAccount(ctx context.Context, id uid.APIKey) (*APIKey, *Account, error)
	// KeysByIDs returns the keys that exist.
	KeysByIDs(ctx context.Context, ids []uid.APIKey) (map[uid.APIKey]*APIKey, error)
	// KeysOf returns keys of the user, also revoked and expired ones, the newest
	// first, at most limit of them.
	KeysOf(ctx context.Context, user uid.User, limit int) ([]*APIKey, error)
	// TouchKeys sets LastUsedAt of the keys, but only of one whose LastUsedAt is
	// none or more than UseInterval older. Neither Version nor UpdatedAt changes,
	// no event is recorded, and keys that do not exist are passed over.
	TouchKeys(ctx context.Context, used map[uid.APIKey]time.Time) error
}
