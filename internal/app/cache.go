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

// WithRevocations returns the database whose changes of users and credentials have this node
// authenticate their callers again, before the change is answered. Other nodes do so when they read
// the event. The service is called only after a change, so that it may stand on the database itself.
func WithRevocations(db *store.DB, sessions func() *session.Service) *store.DB {
	return db.OnCommitted(func(rows []store.Touched) {
		for _, row := range rows {
			switch row.Entity {
			case user.Entity.Name:
				sessions().RecheckUser(uid.User(row.ID))
			case session.SessionEntity.Name, session.APIKeyEntity.Name:
				sessions().RecheckCredential(row.ID)
			}
		}
	})
}
