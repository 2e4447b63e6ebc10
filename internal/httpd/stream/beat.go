package stream

import (
	"context"
	"time"
)

// tick does what is due on a socket without a message: it ends one that does not
// begin, lies idle, is dead or has lost its credential, and gives signs of life.
// It runs on the socket's timer.
func (k *socket) tick() {
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
	case now.Sub(k.line.silentSince()) >= 2*cfg.KeepAlive+cfg.KeepAlive/2:
		return endDead
	case now.Sub(k.lastUse()) >= cfg.IdleTime && k.tasks.empty():
		return endIdle
	}
	return k.cred.check(k.ctx, cfg.CheckTime)
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
// offers to say that the server lives. A client that is being written to is not
// waited for.
func (k *socket) beat() {
	go func() {
		// Not by the socket's context: the library cuts the connection if the one of
		// a write is cancelled, and the closing frame would be lost.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(k.ctx), k.s.cfg.KeepAlive)
		defer cancel()
		_ = k.ws.Ping(ctx) // the line knows whether an answer came
		if k.acked.Load() {
			k.dialect.beat(k)
		}
	}()
}
