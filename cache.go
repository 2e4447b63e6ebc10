package main

import (
	"github.com/redis/go-redis/v9/logging"

	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/event"
)

// openCache builds what spares the database reads. It passes everything on until
// it follows a hub; so commands that do not serve read the database.
func openCache(a *app, events *event.Log) (*cache.Cache, error) {
	logging.Disable() // it writes a line for each failed connection; we write one when Redis goes and one when it is back
	return cache.New(cache.Config{
		Bytes: a.cfg.CacheBytes, RedisURL: string(a.cfg.RedisURL), RequestTime: a.cfg.Limits.RequestTime,
	}, events, a.log)
}
