package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// sendHeartbeats sends heartbeats until ctx is over or the registry says that it must end.
func (r *Registered) sendHeartbeats(ctx context.Context) {
	defer close(r.heartbeatsDone)
	defer r.cancel()
	pauses, pause := r.newBackoff(), r.interval()
	for {
		sleep(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		err := r.sendHeartbeat(ctx)
		if ctx.Err() != nil {
			return
		}
		r.recordHeartbeat(ctx, err)
		switch {
		case err == nil:
			pauses.reset()
			pause = r.interval()
		case isRevoked(err) || Code(err) == CodeStaleIncarnation:
			r.log.ErrorContext(ctx, "heartbeats ended: the registry refused the instance for good", "error", err)
			r.finish(err)
			return
		default: // also a deregistered service: its owner may register it again
			pause = pauses.next()
		}
	}
}

// interval is the time between two heartbeats: a third of the time to live at most.
func (r *Registered) interval() time.Duration {
	third := r.reg.TTL / 3
	return third - rand.N(third/5+1) //nolint:gosec // so that instances do not keep step
}

var renewInstance = operation{"renewInstance", `mutation($in: RenewInstanceInput!) { renewInstance(input: $in) {
	instance { status incarnation } userErrors { code message path } } }`}

// sendHeartbeat renews the lease. An instance that was removed registers again, and so does one that
// was late, so that it need not wait for the reconcile loop. Either keeps the incarnation:
// if another process has registered meanwhile, that one stays.
func (r *Registered) sendHeartbeat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.reg.TTL/3)
	defer cancel()
	before := r.State()
	err := r.renew(ctx, before.Incarnation)
	late := time.Since(before.Seen) > r.reg.TTL && r.State().Status == Critical
	if removed := Code(err) == CodeInstanceNotFound; removed || err == nil && late {
		if err = r.register(ctx, before.Incarnation); err == nil {
			r.log.InfoContext(ctx, "registered again", "removed", removed)
			err = r.drainAgain(ctx)
		}
	}
	return err
}

func (r *Registered) renew(ctx context.Context, incarnation int64) error {
	in := r.ids(incarnation)
	if r.reg.Inflight != nil {
		in["inflight"] = max(0, r.reg.Inflight())
	}
	return r.updateInstance(ctx, renewInstance, in)
}

// recordHeartbeat records the result of a heartbeat, and logs a change, not each failure.
func (r *Registered) recordHeartbeat(ctx context.Context, err error) {
	r.mu.Lock()
	before := r.trouble
	r.trouble = err
	r.mu.Unlock()
	switch {
	case err != nil && before == nil:
		r.log.WarnContext(ctx, "a heartbeat failed; it is tried again", "error", err)
	case err == nil && before != nil:
		r.log.InfoContext(ctx, "heartbeats succeed again")
	}
}

// finish records why the instance is not kept registered any more. It is called once.
func (r *Registered) finish(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = why
	close(r.done)
}

var drainInstance = operation{"drainInstance", `mutation($in: DrainInstanceInput!) { drainInstance(input: $in) {
	instance { status incarnation } userErrors { code message path } } }`}

// Drain asks callers to send the instance no new calls, and says why, in up to 200
// characters. Heartbeats go on. It lasts until the instance is started again; a
// repeated call changes the reason.
func (r *Registered) Drain(ctx context.Context, reason string) error {
	r.mu.Lock()
	r.drained = &reason
	incarnation := r.incarnation
	r.mu.Unlock()
	in := r.ids(incarnation)
	in["reason"] = reason
	return r.updateInstance(ctx, drainInstance, in)
}

// drainAgain drains an instance that was draining before it was removed.
func (r *Registered) drainAgain(ctx context.Context) error {
	r.mu.Lock()
	reason := r.drained
	r.mu.Unlock()
	if reason == nil {
		return nil
	}
	return r.Drain(ctx, *reason)
}

// closeTime bounds Close, whatever its context says.
const closeTime = 15 * time.Second

var deregisterInstance = operation{"deregisterInstance", `mutation($in: DeregisterInstanceInput!) { deregisterInstance(input: $in) { userErrors { code message path } } }`}

// Close takes the instance out of the registry: it drains, so that callers stop
// sending calls, and is removed once they have had time to see that. Stop
// serving after it, not before. It takes as long as ctx lasts at most, and never longer
// than 15 s; an error says that the instance is still registered and will be
// critical when its time to live is over. All calls return what the first one does.
func (r *Registered) Close(ctx context.Context) error {
	r.closing.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, closeTime)
		defer cancel()
		r.closed = r.deregister(ctx)
	})
	return r.closed
}

func (r *Registered) deregister(ctx context.Context) error {
	if r.reg.Drain > 0 && r.Err() == nil {
		r.mu.Lock()
		already := r.drained != nil
		r.mu.Unlock()
		if already || r.Drain(ctx, "stopping") == nil {
			sleep(ctx, r.reg.Drain)
		}
	}
	r.cancel()
	<-r.heartbeatsDone
	if r.Err() != nil { // it is not ours to remove any more
		return nil
	}
	defer r.finish(ErrClosed)
	err := r.client.mutate(ctx, deregisterInstance, r.ids(r.State().Incarnation), &struct{}{})
	if code := Code(err); code == CodeInstanceNotFound || code == CodeStaleIncarnation || code == CodeServiceNotFound {
		return nil // already removed
	}
	return err
}
