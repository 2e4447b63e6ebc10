package app

import (
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/store"
)

// OpenCache builds the cache of decoded rows, which the hub keeps up to date, and
// has every commit of this node invalidate it. The caller closes it.
func OpenCache(env Env, db *store.DB, hub *eventlog.Hub) (*cache.Cache, error) {
	c, err := cache.New(cache.Config{
		Bytes: env.Config.CacheBytes, RedisURL: string(env.Config.RedisURL), RequestTime: env.Config.GraphQL.Time,
	}, eventlog.NewLog(db.Events()), env.Log)
	if err != nil {
		return nil, err
	}
	// A cycle: the cache reads the log from the database, whose commits invalidate it.
	db.OnCommit(c.Invalidate)
	c.Follow(hub)
	return c, nil
}
