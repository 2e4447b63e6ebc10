package cache

import (
	"context"
	"encoding/json"
	"math/rand/v2"

	"github.com/redis/go-redis/v9"
)

// fill is a value to be stored under a lease.
type fill struct {
	answer

	newer int // its version
	value any
}

// fillJob are fills of one entity.
type fillJob struct {
	count *counters
	fills []fill
}

// fill stores values in Redis, later and elsewhere: nobody waits for it. If too
// many wait already, these are not stored.
func (r *remote) fill(count *counters, fills []fill) {
	if len(fills) == 0 {
		return
	}
	select {
	case r.fills <- fillJob{count, fills}:
	default:
		r.fillsDropped.Add(uint64(len(fills)))
	}
}

// runFills stores what waits to be stored, until ctx is cancelled.
func (r *remote) runFills(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case job := <-r.fills:
			r.store(ctx, job)
		}
	}
}

func (r *remote) store(ctx context.Context, job fillJob) {
	at := job.fills[0].at // one call of get, one era
	if r.breaker.isOpen() {
		return
	}
	keys, args := []string{at.meta()}, []any{at.generation}
	for _, f := range job.fills {
		data, err := json.Marshal(f.value)
		if err != nil || len(data) > maxValue {
			continue
		}
		life := r.c.cfg.TTL - rand.N(r.c.cfg.TTL/5) //nolint:gosec // spreads the ends of values that were read together
		keys = append(keys, f.key)
		args = append(args, f.lease, f.newer, format(f.newer, data), life.Milliseconds())
	}
	if len(keys) == 1 {
		return
	}
	limited, cancel := r.limit(ctx)
	defer cancel()
	refused, err := fillScript.Run(limited, r.client, keys, args...).Int()
	r.note(ctx, err)
	if err == nil {
		job.count.remoteFills.Add(uint64(len(keys) - 1 - refused)) //nolint:gosec // never negative
		job.count.remoteRefused.Add(uint64(refused))               //nolint:gosec // never negative
	}
}

// load gives Redis the scripts, so that no reader finds them missing.
func (r *remote) load(ctx context.Context) error {
	for _, s := range []*redis.Script{getScript, fillScript, applyScript, renewScript} {
		limited, cancel := r.limit(ctx)
		err := s.Load(limited, r.client).Err()
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}
