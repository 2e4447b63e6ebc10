package gateway

import (
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/uid"
)

// budgets bounds the retries of each service: to a share of its calls, and some more so that a
// quiet service can be retried too. When all instances fail, retries then add little to
// their load. There are as many budgets as services, which are bounded.
type budgets struct {
	share float64
	floor int

	mu sync.Mutex
	of map[uid.Service]*budget
}

// budget counts calls and retries of the last window, in slots of a second.
type budget struct {
	slots          [budgetWindow]struct{ calls, retries int }
	calls, retries int   // of all slots
	now            int64 // the second of the newest slot
}

const budgetWindow = 10 // seconds

// called notes a call of the service.
func (b *budgets) called(service uid.Service, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.current(service, at)
	x.slots[x.now%budgetWindow].calls++
	x.calls++
}

// take reports whether a call of the service may be retried, and notes that it is.
func (b *budgets) take(service uid.Service, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.current(service, at)
	if x.retries >= b.floor+int(b.share*float64(x.calls)) {
		return false
	}
	x.slots[x.now%budgetWindow].retries++
	x.retries++
	return true
}

// current returns the service's budget without what lies behind the window.
func (b *budgets) current(service uid.Service, at time.Time) *budget {
	x := b.of[service]
	if x == nil {
		if b.of == nil {
			b.of = map[uid.Service]*budget{}
		}
		x = &budget{now: at.Unix()}
		b.of[service] = x
	}
	for steps := 0; x.now < at.Unix(); steps++ {
		if steps == budgetWindow {
			x.now = at.Unix() // a whole window without calls
			break
		}
		x.now++
		slot := &x.slots[x.now%budgetWindow]
		x.calls, x.retries = x.calls-slot.calls, x.retries-slot.retries
		slot.calls, slot.retries = 0, 0
	}
	return x
}
