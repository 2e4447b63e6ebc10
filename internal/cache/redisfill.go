package cache

import (
	"context"
	"encoding/json"
	"math/rand/v2"

	"github.com/redis/go-redis/v9"
)

// redisFill is a value to be stored in a slot, if the slot's fill token still stands.
type redisFill struct {
	redisSlot

	newVersion int
	value      any
}

// fillJob is the fills of one batch of an entity.
type fillJob struct {
	count *counters
	fills []redisFill
}

// enqueueFills queues values to be stored in Redis, so that no reader waits for it. It drops them if
// the queue is full.
func (r *redisLevel) enqueueFills(count *counters, fills []redisFill) {
	if len(fills) == 0 {
		return
	}
	select {
	case r.fills <- fillJob{count, fills}:
	default:
		r.fillsDropped.Add(uint64(len(fills)))
	}
}

// runFills stores the queued values until ctx is cancelled.
func (r *redisLevel) runFills(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case job := <-r.fills:
			r.storeFills(ctx, job)
		}
	}
}

func (r *redisLevel) storeFills(ctx context.Context, job fillJob) {
	g := job.fills[0].generation // of the whole batch
	if r.breaker.isOpen() {
		return
	}
	keys, args := []string{g.metaKey()}, []any{g.id}
	for _, f := range job.fills {
		data, err := json.Marshal(f.value)
		if err != nil || len(data) > maxRedisValue {
			continue
		}
		life := r.cache.cfg.TTL - rand.N(r.cache.cfg.TTL/5) //nolint:gosec // spreads the expiry of values that were read together
		keys = append(keys, f.key)
		args = append(args, f.token, f.newVersion, r.format.write(f.key, f.newVersion, data, r.cache.cfg.Now()), life.Milliseconds())
	}
	if len(keys) == 1 {
		return
	}
	limited, cancel := r.withTimeout(ctx)
	defer cancel()
	refused, err := fillScript.Run(limited, r.client, keys, args...).Int()
	r.recordResult(ctx, fillWrite, err)
	if err == nil {
		job.count.redisFills.Add(uint64(len(keys) - 1 - refused)) //nolint:gosec // never negative
		job.count.redisRefused.Add(uint64(refused))               //nolint:gosec // never negative
	}
}

// loadScripts loads the scripts into Redis, so that no reader finds one missing.
func (r *redisLevel) loadScripts(ctx context.Context) error {
	for _, s := range []*redis.Script{readScript, fillScript, applyScript, renewScript} {
		limited, cancel := r.withTimeout(ctx)
		err := s.Load(limited, r.client).Err()
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}
