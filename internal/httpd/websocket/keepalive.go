package websocket

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/monotime"
)

// onTimer does what is due on a socket without a message: it closes one that sends no init,
// is idle or dead or has lost its credential, and sends keep-alives. It runs on the socket's
// timer.
func (k *socket) onTimer() {
	select {
	case <-k.ready:
	default:
		return // Recheck came before the upgrade, which sets the timer again
	}
	if k.ctx.Err() != nil {
		return
	}
	k.timing.Lock()
	defer k.timing.Unlock()
	k.s.connections.Guard(k.ctx, k, func() {
		if reason := k.overdue(time.Now()); reason != nil {
			k.Close(reason)
			return
		}
		if now := time.Now(); !now.Before(k.nextKeepAlive) {
			k.nextKeepAlive = now.Add(k.s.cfg.KeepAlive)
			k.keepAlive()
		}
		k.schedule()
	})
}

// overdue returns why the socket must close, nil if it need not.
func (k *socket) overdue(now time.Time) *connection.CloseReason {
	cfg := k.s.cfg
	switch {
	case !k.acknowledged.Load() && now.Sub(k.opened) >= cfg.InitTime:
		return connection.ReasonInitTimeout
	case now.Sub(k.conn.lastRead()) >= k.readIdleLimit(now):
		return connection.ReasonDead
	case k.operations.Idle() && now.Sub(k.lastUse()) >= cfg.IdleTime: // in this order: the last operation touches before it finishes
		return reasonIdle
	}
	return k.cred.Check(k.ctx, cfg.CheckTime)
}

// readIdleLimit is how long a client may send nothing. A slow one gets to our pings only
// behind all that it has not read.
func (k *socket) readIdleLimit(now time.Time) time.Duration {
	limit := 2*k.s.cfg.KeepAlive + k.s.cfg.KeepAlive/2
	if k.conn.isSlow(now) {
		return max(limit, k.s.cfg.StallTime)
	}
	return limit
}

func (k *socket) lastUse() time.Time { return monotime.Time(k.lastUsed.Load()) }

// schedule sets the timer for what is due first.
func (k *socket) schedule() {
	due := k.nextKeepAlive
	sooner := func(at time.Time) {
		if at.Before(due) {
			due = at
		}
	}
	if !k.acknowledged.Load() {
		sooner(k.opened.Add(k.s.cfg.InitTime))
	}
	if at, ok := k.cred.NextCheck(k.s.cfg.CheckTime); ok {
		sooner(at)
	}
	if k.ctx.Err() == nil {
		k.timer.Reset(max(time.Until(due), time.Millisecond))
	}
}

// keepAlive sends a ping, whose pong conn notes as read, and the subprotocol's own keep-alive,
// unless the last ones are still being written: they wait behind what the client has not read.
func (k *socket) keepAlive() {
	if !k.keepingAlive.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer k.keepingAlive.Store(false)
		k.writeFrames(nil, []byte{finalPing, 0})
		if k.acknowledged.Load() {
			k.subprotocol.keepAlive(k)
		}
	}()
}

// The first bytes of control frames.
const (
	finalPing = 0x89
	finalPong = 0x8A
)

// answerPing answers a ping, which has at most 125 bytes, and keeps the library from doing so.
// If earlier pings still wait for their answer, only the last one gets it.
func (k *socket) answerPing(_ context.Context, payload []byte) bool {
	frame := append([]byte{finalPong, byte(len(payload))}, payload...) //nolint:gosec // the library has checked its length
	if k.pong.Swap(&frame) == nil {
		go func() {
			for last := k.pong.Load(); ; last = k.pong.Load() {
				k.writeFrames(nil, *last)
				if k.pong.CompareAndSwap(last, nil) {
					return
				}
			}
		}()
	}
	return false
}
