package main

import (
	"backplane/internal/cache"
	"backplane/internal/event"
)

// openCache builds what spares the database reads. It passes everything on until
// it follows a hub; so commands that do not serve read the database.
func openCache(a *app, events *event.Log) (*cache.Cache, error) {
	return cache.New(cache.Config{
		Bytes: a.cfg.CacheBytes, RedisURL: string(a.cfg.RedisURL), RequestTime: a.cfg.Limits.RequestTime,
	}, events, a.log)
}
