// Package securitylog stores, lists, exports and removes security events (package security).
//
// Changes store their events themselves, in their transaction. Failures and refusals pass the Recorder of
// the node: it writes a log record, counts a metric and queues the event in memory, and stores what is queued
// once a second. It never blocks a request and never fails one.
//
// Everything is bounded. Of equal events (type, account, credential, actor, reason, network) within a
// minute the first is stored as it is, and the others as one row with their number, at the end of the
// minute; a network has at most 100 such groups and a node 1,000, beyond which events are counted by type and network, then by type.
// So however many refusals a client causes, a node stores two rows a minute for each group. What cannot be
// stored because the database is down waits, and is dropped and counted beyond 2,000 rows.
//
// A node that is killed loses the refusals of its last second, and the counts of its last minute. One
// that stops stores them.
package securitylog

import (
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/setting"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Config tunes what this package keeps. The zero value is ready to use.
type Config struct {
	Retention           time.Duration
	Interval, Window    time.Duration
	Groups, NetworkRows int
	Pending             int
}

// Settings declares the tunables.
func (c *Config) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Period(&c.Retention, "SECURITY_RETENTION", 90*24*time.Hour, "how long security events are kept"),
		setting.Internal(&c.Interval, time.Second, "interval of stores"),
		setting.Internal(&c.Window, time.Minute, "time within which equal refusals are counted together"),
		setting.Internal(&c.Groups, 1000, "groups of equal refusals that are counted at the same time"),
		setting.Internal(&c.NetworkRows, 100, "of them, those of one network"),
		setting.Internal(&c.Pending, 2000, "rows that wait to be stored"),
	}
}

func (c Config) withDefaults() (Config, error) {
	err := setting.ApplyDefaults("security log config", c.Settings())
	return c, err
}

// Filter says which events a list shows. Empty fields filter nothing.
type Filter struct {
	Type    security.EventType
	UserID  *uid.User
	Address *string
	Since   *time.Time // stored at or after
	Until   *time.Time // stored before
}

// Position is the position of an event in the order in which events were stored.
type Position struct {
	RecordedAt time.Time
	ID         string
}

// Store persists security events. It is declared here, where it is used.
type Store interface {
	// Append stores the events, each only once however often it is called with it.
	Append(ctx context.Context, events []security.Event) error
	// Sweep removes at most limit events that were stored longer ago than age, by the clock of
	// the database, and returns how many it removed.
	Sweep(ctx context.Context, age time.Duration, limit int) (int, error)
	// List returns a page of the events that match, the newest first.
	List(ctx context.Context, f Filter, args page.Args) (page.Page[*security.Event], error)
	// NewestOf returns the newest events about the user that are of the types, at most limit.
	NewestOf(ctx context.Context, user uid.User, types []security.EventType, limit int) ([]*security.Event, error)
	// ReadAfter returns events that were stored after the position, the oldest first, at most limit.
	ReadAfter(ctx context.Context, after Position, limit int) ([]*security.Event, error)
}

// Service is what callers may read of security events. They are never changed.
type Service struct{ store Store }

// NewService returns a Service on the store.
func NewService(store Store) *Service { return &Service{store} }

// List returns a page of all security events, the newest first. It needs ADMIN in a session, or an API
// key of an ADMIN with the scope auth.UsersAdmin.
func (s *Service) List(ctx context.Context, f Filter, args page.Args) (page.Page[*security.Event], error) {
	caller := auth.From(ctx)
	switch {
	case caller == nil:
		return page.Page[*security.Event]{}, auth.NotSignedIn(ctx)
	case !caller.MayAdministerUsers():
		return page.Page[*security.Event]{}, fault.New(fault.Forbidden,
			"Reading security events needs ADMIN in a session, or an API key of ADMIN with the scope %s.", auth.UsersAdmin)
	}
	return s.store.List(ctx, f, args)
}

// SignIns returns the newest sign-ins to the account of the caller and the failed attempts, at most limit, which is up to
// page.MaxSize. Of another user's account it returns none, also to ADMIN, which has List.
func (s *Service) SignIns(ctx context.Context, user uid.User, limit int) ([]*security.Event, error) {
	if limit < 0 || limit > page.MaxSize {
		return nil, fault.New(fault.PageSizeInvalid, "first must be from 0 to %d, not %d.", page.MaxSize, limit).At("first")
	}
	caller, err := auth.Require(ctx, auth.UsersRead)
	if err != nil || !caller.Owns(user) || limit == 0 {
		return nil, err
	}
	found, err := s.store.NewestOf(ctx, user, security.SignIns(), limit)
	if err != nil {
		return nil, fmt.Errorf("read the sign-ins of %s: %w", user, err)
	}
	return found, nil
}
