package connection

import (
	"context"
	"time"
)

// tick does what is due on a socket without a message: it ends one that does not
// begin, lies idle, is dead or has lost its credential, and gives signs of life.
// It runs on the socket's timer.
func (k *socket) tick() {
	select {
	case <-k.ready:
	default:
		return // the credential is to be looked at, but there is no socket yet
	}
	if k.ctx.Err() != nil {
		return
	}
	k.ticking.Lock()
	defer k.ticking.Unlock()
	k.s.guarded(k.ctx, k, func() {
		if why := k.overdue(time.Now()); why != nil {
			k.end(why)
			return
		}
		if now := time.Now(); !now.Before(k.nextBeat) {
			k.nextBeat = now.Add(k.s.cfg.KeepAlive)
			k.beat()
		}
		k.schedule()
	})
}

func (k *socket) overdue(now time.Time) *ending {
	cfg := k.s.cfg
	switch {
	case !k.acked.Load() && now.Sub(k.opened) >= cfg.InitTime:
		return endNoInit
	case now.Sub(k.line.silentSince()) >= k.patience(now):
		return endDead
	case k.tasks.idle() && now.Sub(k.lastUse()) >= cfg.IdleTime: // in this order: the last operation touches before it ends
		return endIdle
	}
	return k.cred.check(k.ctx, cfg.CheckTime)
}

// patience is how long a client may say nothing. One that reads slowly comes to our
// pings behind all that it has not read.
func (k *socket) patience(now time.Time) time.Duration {
	quiet := 2*k.s.cfg.KeepAlive + k.s.cfg.KeepAlive/2
	if k.line.isSlow(now) {
		return max(quiet, k.s.cfg.StallTime)
	}
	return quiet
}

func (k *socket) lastUse() time.Time { return time.Unix(0, k.used.Load()) }

// schedule sets the timer for what is due first.
func (k *socket) schedule() {
	due := k.nextBeat
	sooner := func(at time.Time) {
		if at.Before(due) {
			due = at
		}
	}
	if !k.acked.Load() {
		sooner(k.opened.Add(k.s.cfg.InitTime))
	}
	if at, ok := k.cred.next(k.s.cfg.CheckTime); ok {
		sooner(at)
	}
	if k.ctx.Err() == nil {
		k.timer.Reset(max(time.Until(due), time.Millisecond))
	}
}

// beat sends a ping, whose answer the line hears, and what the subprotocol
// offers to say that the server lives, unless the last ones are still on their
// way: they wait behind what the client has not read.
func (k *socket) beat() {
	if !k.beating.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer k.beating.Store(false)
		k.write(nil, []byte{finalPing, 0})
		if k.acked.Load() {
			k.dialect.beat(k)
		}
	}()
}

// The first bytes of control frames.
const (
	finalPing = 0x89
	finalPong = 0x8A
)

// pinged answers a ping, which has at most 125 bytes, and keeps the library from
// doing so. If earlier ones still wait for their answer, the last one gets it.
func (k *socket) pinged(_ context.Context, payload []byte) bool {
	frame := append([]byte{finalPong, byte(len(payload))}, payload...) //nolint:gosec // the library has seen to its length
	if k.pong.Swap(&frame) == nil {
		go func() {
			for last := k.pong.Load(); ; last = k.pong.Load() {
				k.write(nil, *last)
				if k.pong.CompareAndSwap(last, nil) {
					return
				}
			}
		}()
	}
	return false
}
