package gateway

import (
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/monotime"
	"github.com/backplane-dev/backplane/internal/uid"
)

// retryBudgets limits the retries of each service to a share of its calls, plus a minimum so that a
// service with few calls can be retried too. When all instances fail, retries then add little load.
// There is one budget per service, and services are bounded.
type retryBudgets struct {
	share   float64
	minimum int

	mu        sync.Mutex
	byService map[uid.Service]*retryWindow
}

// retryWindow counts calls and retries of the last ten seconds, in slots of a second.
type retryWindow struct {
	slots          [budgetWindow]struct{ calls, retries int }
	calls, retries int   // of all slots
	now            int64 // the second of the newest slot, of monotime
}

const budgetWindow = 10 // seconds

// recordCall counts a call of the service.
func (b *retryBudgets) recordCall(service uid.Service, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.currentWindow(service, at)
	x.slots[x.now%budgetWindow].calls++
	x.calls++
}

// allowRetry reports whether the budget allows one more retry, and spends it.
func (b *retryBudgets) allowRetry(service uid.Service, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.currentWindow(service, at)
	if x.retries >= b.minimum+int(b.share*float64(x.calls)) {
		return false
	}
	x.slots[x.now%budgetWindow].retries++
	x.retries++
	return true
}

// currentWindow returns the service's window after dropping expired slots.
func (b *retryBudgets) currentWindow(service uid.Service, at time.Time) *retryWindow {
	x, second := b.byService[service], monotime.Nanos(at)/int64(time.Second)
	if x == nil {
		if b.byService == nil {
			b.byService = map[uid.Service]*retryWindow{}
		}
		x = &retryWindow{now: second}
		b.byService[service] = x
	}
	for steps := 0; x.now < second; steps++ {
		if steps == budgetWindow {
			x.now = second // a whole window without calls
			break
		}
		x.now++
		slot := &x.slots[x.now%budgetWindow]
		x.calls, x.retries = x.calls-slot.calls, x.retries-slot.retries
		slot.calls, slot.retries = 0, 0
	}
	return x
}
