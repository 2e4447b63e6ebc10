package app

import (
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/store"
)

// OpenCache builds the cache of decoded rows, which the hub keeps up to date. The caller closes
// it.
func OpenCache(env Env, sealer *secrets.Sealer, hub *eventlog.Hub) (*cache.Cache, error) {
	return cache.New(cache.Config{
		Bytes: env.Config.CacheBytes, RedisURL: string(env.Config.RedisURL), Secret: sealer.Derive("cache"), RequestTime: env.Config.GraphQL.Time,
	}, hub, env.Log)
}

// WithWriteHooks returns the database whose writes invalidate the cache of this node and wake
// the feed. Both read from the database, so it is built before them.
func WithWriteHooks(db *store.DB, c *cache.Cache, feed *eventlog.Pipeline) *store.DB {
	return db.WithHooks(store.Hooks{Committed: c.Invalidate, Appended: feed.EventsAppended})
}
