package app

import (
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// OpenCache builds the cache of decoded rows, which the hub keeps up to date. The caller closes
// it.
func OpenCache(env Env, db *store.DB, sealer *secrets.Sealer, hub *eventlog.Hub) (*cache.Cache, error) {
	return cache.New(cache.Config{
		Bytes: env.Config.CacheBytes, RedisURL: string(env.Config.RedisURL), Secret: sealer.Derive("cache"), RequestTime: env.Config.GraphQL.Time, Now: db.Clock().Now,
	}, hub, env.Log)
}

// WithWriteHooks returns the database whose writes invalidate the cache of this node and wake
// the feed, and whose security events are counted and logged. All of them read from the database, so it is built before them.
func WithWriteHooks(db *store.DB, c *cache.Cache, feed *eventlog.Pipeline, events *securitylog.Recorder) *store.DB {
	return db.WithHooks(store.Hooks{Committed: c.Invalidate, Appended: feed.EventsAppended, Secured: events.Committed})
}

// WithRevocations is WithWriteHooks for the stores of the domains: a change of a user also has
// this node authenticate the user again, before the change is answered. Other nodes do so
// when they read the event.
func WithRevocations(db *store.DB, c *cache.Cache, feed *eventlog.Pipeline, events *securitylog.Recorder, sessions *session.Service) *store.DB {
	return db.WithHooks(store.Hooks{Appended: feed.EventsAppended, Secured: events.Committed, Committed: func(rows []store.Touched) {
		c.Invalidate(rows)
		for _, row := range rows {
			if row.Entity == user.Entity.Name {
				sessions.RecheckUser(uid.User(row.ID))
			}
		}
	}})
}
