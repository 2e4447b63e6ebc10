package connection

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// watch rechecks the credential of a request that is no Connection. It is not counted and not drained.
type watch struct {
	m      *Manager
	ctx    context.Context // its cause is the fault of the close reason
	cancel context.CancelCauseFunc
	cred   Credential
	timer  *time.Timer
}

// UnsetDelay is the delay of a timer that has nothing to do yet.
const UnsetDelay = 365 * 24 * time.Hour

// Watch checks the caller's credential for as long as a request is being answered by another
// package, as it does for connections. It returns the request's context, which ends with a
// fault as its cause once the credential is no longer valid, and the function that ends the
// watch. A watch neither counts against a cap nor takes part in a drain.
func (m *Manager) Watch(ctx context.Context, caller Caller) (context.Context, func()) {
	if caller.Check == nil {
		return ctx, func() {}
	}
	w := &watch{m: m}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.cred.Set(caller)
	w.timer = time.AfterFunc(UnsetDelay, w.onTimer)
	m.addWatch(w, caller.Principal)
	w.schedule()
	return w.ctx, w.end
}

func (m *Manager) addWatch(w *watch, p *auth.Principal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index.put(w, p)
}

func (w *watch) end() {
	w.m.mu.Lock()
	w.m.index.remove(w)
	w.m.mu.Unlock()
	w.cancel(nil)
	w.timer.Stop()
}

// Close implements Connection.
func (w *watch) Close(reason *CloseReason) {
	if reason.Fault == nil {
		w.cancel(fault.From(reason))
		return
	}
	w.cancel(reason.Fault)
}

// Recheck implements Connection.
func (w *watch) Recheck(affected func(*auth.Principal) bool) {
	if w.cred.ExpediteCheck(affected) && w.ctx.Err() == nil {
		w.timer.Reset(0)
	}
}

func (w *watch) onTimer() {
	w.m.Guard(w.ctx, w, func() {
		if reason := w.cred.Check(w.ctx, w.m.cfg.CheckTime); reason != nil {
			w.Close(reason)
			return
		}
		w.schedule()
	})
}

func (w *watch) schedule() {
	if at, ok := w.cred.NextCheck(w.m.cfg.CheckTime); ok && w.ctx.Err() == nil {
		w.timer.Reset(max(time.Until(at), time.Millisecond))
	}
}
