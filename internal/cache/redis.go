package cache

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/backplane-dev/backplane/internal/coalesce"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/secrets"
)

// redisLevel is the level in Redis. Its client is nil if there is no Redis.
type redisLevel struct {
	cache    *Cache
	client   *redis.Client
	pipeline *redis.AutoPipeliner // of client; sends concurrent calls of readers together
	breaker  circuitBreaker
	format   *valueFormat
	forged   sync.Once // the log line about a value with a wrong MAC
	fills    chan fillJob
	wake     coalesce.Signal

	generation atomic.Pointer[generation] // nil while Redis must not be read

	mu         sync.Mutex
	gapAt      *event.Cursor  // the hub's head when it may have missed events; nil once it has gone on
	pending    []*event.Event // to be applied to Redis
	overflowed bool           // pending had no room for more; they must be read from the log again

	errors, fillsDropped, applied, caughtUp, renewed atomic.Uint64
}

// generation is the namespace of the keys that are in use.
type generation struct{ timeline, id string }

func (g generation) prefix() string { return keyFormat + g.timeline + ":" }

func (g generation) metaKey() string { return g.prefix() + metaKey }

func (g generation) rowKey(entity, id string) string {
	return g.prefix() + g.id + ":" + entity + ":" + id
}

// redisSlot is what a key of a row holds: a value, or the token to fill it.
type redisSlot struct {
	generation generation
	key        string
	isValue    bool
	data       []byte    // of a value; nil if its MAC is wrong
	version    int       // of a value
	expires    time.Time // of a value: by its authenticated fill time, whatever Redis says
	expired    bool
	token      string // the whole text, which a fill must find unchanged
}

const (
	maxFillJobs      = 256     // queued, each of one batch
	maxPendingEvents = 20_000  // queued; beyond that they are read from the log again
	maxRedisValue    = 1 << 20 // bytes; larger values stay in process memory
)

func newRedisLevel(c *Cache) (*redisLevel, error) {
	r := &redisLevel{cache: c, fills: make(chan fillJob, maxFillJobs), wake: coalesce.NewSignal(), format: newValueFormat(c.cfg.Secret, c.cfg.TTL)}
	if c.cfg.RedisURL == "" || c.isOff() || c.hub == nil {
		return r, nil
	}
	if c.cfg.Secret == [secrets.Size]byte{} {
		return nil, errors.New("the values in Redis need a secret to be authenticated with")
	}
	opts, err := redis.ParseURL(c.cfg.RedisURL)
	if err != nil {
		return nil, errors.New("this is not a Redis URL such as redis://user:password@host:6379/0") // the library's text may contain the password
	}
	limit := c.cfg.RedisTime
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout, opts.PoolTimeout = limit, limit, limit, limit
	opts.ContextTimeoutEnabled, opts.DisableIdentity = true, true
	opts.MaxRetries, opts.DialerRetries = -1, 1 // a retry takes longer than the database
	opts.PoolSize, opts.MaxActiveConns = c.cfg.RedisConns, c.cfg.RedisConns
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	r.client = redis.NewClient(opts)
	r.pipeline, err = r.client.AutoPipeline()
	return r, err
}

func (r *redisLevel) close() error {
	if r.client == nil {
		return nil
	}
	return errors.Join(r.pipeline.Close(), r.client.Close())
}

// withTimeout limits the time of a Redis call.
func (r *redisLevel) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.cache.cfg.RedisTime)
}

// recordResult reports the result of a call to the circuit breaker. A call that its caller cancelled
// does not count.
func (r *redisLevel) recordResult(ctx context.Context, kind callKind, err error) {
	switch {
	case err == nil:
		r.breaker.recordSuccess(kind)
	case ctx.Err() == nil:
		r.errors.Add(1)
		if r.breaker.recordFailure(kind) {
			r.cache.log.WarnContext(ctx, "Redis fails, circuit breaker open: the cache reads from the database", "error", err)
			r.wake.Set()
		}
	}
}

// readSlots reads rows in one round trip. It returns the slot of each, and the offset up to which the log is
// applied to Redis. It returns false if Redis cannot be used.
func (r *redisLevel) readSlots(ctx context.Context, entity string, ids []string) (slots []redisSlot, offset event.Position, ok bool) {
	for range 2 { // again if another node began a new generation
		g := r.generation.Load()
		if g == nil || r.breaker.isOpen() {
			return nil, 0, false
		}
		keys := make([]string, 1, len(ids)+1)
		keys[0] = g.metaKey()
		for _, id := range ids {
			keys = append(keys, g.rowKey(entity, id))
		}
		state, values, err := r.runScript(ctx, readScript, keys, g.id, newRedisToken(), r.tokenLife().Milliseconds())
		switch {
		case err != nil:
			return nil, 0, false
		case len(values) == len(ids):
			return r.toSlots(*g, keys[1:], values), state.offset, true
		}
		r.followGeneration(g, state)
	}
	return nil, 0, false
}

// tokenLife is how long a reader may take to fill: as long as the longest request.
func (r *redisLevel) tokenLife() time.Duration { return r.cache.cfg.RequestTime }

// tombstoneLife outlives every fill token that was given before the tombstone.
func (r *redisLevel) tombstoneLife() time.Duration { return 2 * r.cache.cfg.RequestTime }

// followGeneration follows a generation that another node has begun. If there is none, Redis has lost
// everything and must not be read until it has an offset again.
func (r *redisLevel) followGeneration(from *generation, state redisState) {
	if state.generation == "" {
		r.generation.CompareAndSwap(from, nil)
		r.wake.Set()
		return
	}
	r.generation.CompareAndSwap(from, &generation{from.timeline, state.generation})
}

// redisState is the generation and the offset that Redis holds.
type redisState struct {
	generation string
	offset     event.Position // the log is applied to Redis up to here
}

var errUnexpectedReply = errors.New("a script returned an unexpected reply")

// runScript runs a script that returns generation, offset and any values. The state is empty if Redis
// holds none or a corrupt one.
func (r *redisLevel) runScript(ctx context.Context, s *redis.Script, keys []string, args ...any) (state redisState, values []any, err error) {
	limited, cancel := r.withTimeout(ctx)
	defer cancel()
	reply, err := s.Run(limited, r.pipeline, keys, args...).Slice()
	kind := logWrite
	if s == readScript {
		kind = rowRead
	}
	r.recordResult(ctx, kind, err)
	if err != nil {
		return state, nil, err
	}
	if len(reply) < 2 {
		return state, nil, errUnexpectedReply
	}
	state.generation, _ = reply[0].(string)
	text, _ := reply[1].(string)
	offset, err := strconv.ParseInt(text, 10, 64)
	if state.generation == "" || err != nil {
		return redisState{}, nil, nil
	}
	state.offset = event.Position(offset)
	return state, reply[2:], nil
}

func (r *redisLevel) toSlots(g generation, keys []string, values []any) []redisSlot {
	slots, now := make([]redisSlot, len(values)), r.cache.cfg.Now()
	for i, v := range values {
		text, _ := v.(string)
		slots[i] = r.format.parse(keys[i], text, now)
		slots[i].generation = g
	}
	return slots
}

// logForged says once that a value has a wrong MAC.
func (r *redisLevel) logForged(ctx context.Context, key string) {
	r.forged.Do(func() {
		r.cache.log.ErrorContext(ctx, "a value in Redis was not written by this installation, or was changed since: it is ignored, check what else can write to Redis; further ones are only counted", "key", key)
	})
}

// newRedisToken returns a unique text.
func newRedisToken() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return hex.EncodeToString(b[:])
}
