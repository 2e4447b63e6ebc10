package session

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Store persists what this package owns. It is declared here, where it is used,
// in parts that can be read one at a time; one type implements them all.
//
// Each method is one transaction. Rows given to a function are locked until the
// commit, and the function may run again after a conflict, on fresh rows; it
// does no I/O. If it fails nothing is stored and its error is returned as it is.
// What a function recorded (TakeEvents) commits with the rows it changed.
// Methods that change an account or a session honour the idempotency key of the
// context: under one that was used before they call no function and return nil,
// with the object as it is now. Opening a session, refreshing one and creating
// a key come without one.
type Store interface {
	Accounts
	Sessions
	Keys
	SigningKeys
	Throttle
}

// Account is what this package needs to know of a user.
type Account struct {
	UserID            uid.User
	Active            bool // its status is ACTIVE
	Roles             []auth.Role
	Credential        string // password hash, as HashPassword made it; empty if it has no password
	CredentialVersion int    // raised by each change of the password, but not by a new hash of the same; 0 if none
}

// Holder is an account with its live sessions, as one unit of change.
type Holder struct {
	Account
	Sessions []*Session // neither revoked nor expired, by id, so the oldest comes first
	Opened   *Session   // to be inserted; nil for none
}

// TakeEvents returns the events recorded on the sessions since the last call.
func (h *Holder) TakeEvents() []event.Event {
	var all []event.Event
	for _, s := range h.Sessions {
		all = append(all, s.TakeEvents()...)
	}
	return all
}

// Accounts looks accounts up and changes their credentials.
type Accounts interface {
	// AccountByLogin returns the account with that email address if login holds an
	// "@", else the account with that user name, by the rules of uniqueness of
	// either. NotFound, USER_NOT_FOUND, if there is none.
	AccountByLogin(ctx context.Context, login string) (*Account, error)
	// AccountByID returns the account, or NotFound, USER_NOT_FOUND.
	AccountByID(ctx context.Context, id uid.User) (*Account, error)
	// UpdateHolder locks the account, then its sessions that are live at the given
	// time by id, applies fn, and commits Credential and CredentialVersion, the
	// sessions whose Version fn raised, the session Opened, and the events.
	// NotFound, USER_NOT_FOUND, if there is no such account; fn decides about one
	// that is not active. Roles and Active are not written.
	UpdateHolder(ctx context.Context, id uid.User, at time.Time, fn func(*Holder) error) error
	// UpdateAccess locks the account, then its sessions and its keys that are live at
	// the given time, each by id, applies fn, and commits those whose Version fn
	// raised, and the events. NotFound, USER_NOT_FOUND, if there is no such account.
	// It is for consumers and repeats for no idempotency key.
	UpdateAccess(ctx context.Context, id uid.User, at time.Time, fn func(*Access) error) error
}

// Sessions reads and changes sessions.
type Sessions interface {
	// UpdateSession locks the session, applies fn and commits the result with its
	// events; if fn left Version alone nothing is written. NotFound,
	// SESSION_NOT_FOUND, if there is none.
	UpdateSession(ctx context.Context, id uid.Session, fn func(*Session) error) (*Session, error)
	// SessionStanding returns a session and its account as of one moment, in one
	// statement: every request of a session asks this, at most once a second and
	// node. NotFound, SESSION_NOT_FOUND, if there is none.
	SessionStanding(ctx context.Context, id uid.Session) (*Session, *Account, error)
	// SessionsByIDs returns the sessions that exist.
	SessionsByIDs(ctx context.Context, ids []uid.Session) (map[uid.Session]*Session, error)
	// LiveSessions returns sessions of the user that are live at the given time, the
	// one used last first, at most limit of them.
	LiveSessions(ctx context.Context, user uid.User, at time.Time, limit int) ([]*Session, error)
	// Sweep removes at most limit sessions that ended, by revocation or expiry,
	// before ended, and at most limit counters whose window ended before now. It
	// returns how many rows it removed and records no events.
	Sweep(ctx context.Context, ended, now time.Time, limit int) (int, error)
}

// Keys reads and changes API keys.
type Keys interface {
	// CreateKey locks the account of the key's owner, counts its keys that are live
	// at the given time, asks allow, and inserts the key with its events.
	// NotFound, USER_NOT_FOUND, if there is no such account.
	CreateKey(ctx context.Context, k *APIKey, at time.Time, allow func(owner *Account, live int) error) error
	// UpdateKey locks the key, applies fn and commits the result with its events;
	// if fn left Version alone nothing is written. LastUsedAt is not written.
	// NotFound, API_KEY_NOT_FOUND, if there is none. It honours idempotency keys
	// as methods that change a session do.
	UpdateKey(ctx context.Context, id uid.APIKey, fn func(*APIKey) error) (*APIKey, error)
	// KeyStanding is SessionStanding for an API key: API_KEY_NOT_FOUND if there is
	// none.
	KeyStanding(ctx context.Context, id uid.APIKey) (*APIKey, *Account, error)
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

// SigningKeys reads and changes the keys that sign access tokens.
type SigningKeys interface {
	// SigningKeys returns every key, by SignsAt, then by ID.
	SigningKeys(ctx context.Context) ([]*SigningKey, error)
	// UpdateSigningKeys takes the one lock of all signing keys (against inserts
	// too: on an empty table ten nodes must not make ten keys), reads every key by
	// SignsAt, then ID, and calls fn. It inserts the key that fn returns, if any,
	// with its events, and removes the keys named by drop. It returns the keys as
	// they are after the commit, in the same order.
	UpdateSigningKeys(ctx context.Context, fn func(keys []*SigningKey) (add *SigningKey, drop []string, err error)) ([]*SigningKey, error)
}

// Counter is a limit on how often something may happen within a window of time,
// on all nodes together. A window starts with the first count.
type Counter struct {
	Name   string // at most 64 ASCII characters; says nothing about whom it counts
	Limit  int
	Window time.Duration
}

// Throttle counts tries.
type Throttle interface {
	// Take adds one to each of the counters if all are below their limits, else to
	// none: then it returns how long the first that refused stays full. It is exact:
	// of any number of parallel calls no more succeed than the limits allow. A
	// counter whose window ended at or before the given time starts anew. It takes
	// its locks by Name and repeats for no idempotency key.
	Take(ctx context.Context, counters []Counter, at time.Time) (wait time.Duration, err error)
	// GiveBack resets the counters named by reset and takes one from those named by
	// less, never below zero, in the order of their names. Counters that do not
	// exist are passed over.
	GiveBack(ctx context.Context, reset, less []string) error
}
