package cache

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/uid"
)

// RedisClient is the client of the Redis level.
func (c *Cache) RedisClient() *redis.Client { return c.redis.client }

// RedisKey is the key of a row in the current generation.
func (c *Cache) RedisKey(entity, id string) string {
	return c.redis.generation.Load().rowKey(entity, id)
}

// RedisMetaKey is the key of the hash with generation and offset.
func (c *Cache) RedisMetaKey() string { return c.redis.generation.Load().metaKey() }

// TakeCheckpoint drops the minimum versions known before the last checkpoint.
func (c *Cache) TakeCheckpoint() { c.takeCheckpoint() }

// Evict evicts everything, as if there was no room for it.
func (c *Cache) Evict() {
	values := c.memory.values
	limit := values.GetMaximum()
	values.SetMaximum(0)
	values.CleanUp()
	values.SetMaximum(limit)
}

// Expire expires a product in process memory.
func (s *Products) Expire(id uid.Product) {
	if e, ok := s.table.held.get(string(id)); ok {
		e.expires = 0
	}
}

// MinimumVersion is the minimum version of a product; 0 if there is none.
func (s *Products) MinimumVersion(id uid.Product) int {
	return s.table.cache.minimum.get(s.table.cache.epochs, s.table.key(id))
}

// InvalidateAll invalidates everything, as a gap in the log does.
func (c *Cache) InvalidateAll() { c.invalidateAll() }

// DropMinimumVersions drops every minimum version.
func (c *Cache) DropMinimumVersions() { c.minimum.dropUntil(math.MaxInt64) }

// Clear empties process memory, as in a new process.
func (c *Cache) Clear() {
	c.memory.clear()
}

// ReadRedis reads products from Redis.
func (c *Cache) ReadRedis(ctx context.Context, ids []uid.Product) error {
	if _, _, ok := c.redis.readSlots(ctx, products.name, toStrings(ids)); !ok {
		return errors.New("the read of Redis failed")
	}
	return nil
}

// ReadRedisBy is ReadRedis through another client.
func (c *Cache) ReadRedisBy(ctx context.Context, by redis.Scripter, ids []uid.Product) error {
	g := c.redis.generation.Load()
	keys := []string{g.metaKey()}
	for _, id := range ids {
		keys = append(keys, g.rowKey(products.name, string(id)))
	}
	return readScript.Run(ctx, by, keys, g.id, "token", 10_000).Err()
}

// FormatValue is a value as the node would write it under the key.
func (c *Cache) FormatValue(key string, version int, data []byte, at time.Time) string {
	return c.redis.format.write(key, version, data, at)
}

// ExpiresAt is when a product expires in process memory.
func (s *Products) ExpiresAt(id uid.Product) time.Time {
	if e, ok := s.table.held.get(string(id)); ok {
		return time.Unix(0, e.expires)
	}
	return time.Time{}
}
