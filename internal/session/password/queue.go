package password

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
)

// queue is a semaphore with fair waiting: permits go round the addresses that wait, and within an
// address round its accounts. A caller that finds the queue full takes the place of the newest one of
// the address that waits for the most, so that no address keeps others out. A golang.org/x/sync
// semaphore serves waiters in their order, by which a flood comes first.
type queue struct {
	permits, places int

	mu        sync.Mutex
	running   int
	waiting   int
	addresses []*addressQueue // the next to be served first; none is empty
}

// addressQueue is what waits from one address.
type addressQueue struct {
	address  string
	waiting  int
	accounts []*accountQueue // the next to be served first; none is empty
}

// accountQueue is what waits for one account from one address, in its order.
type accountQueue struct {
	account string
	waiters []*waiter
}

// waiter is one caller that waits.
type waiter struct {
	address, account string
	decided          chan error // receives nil with the permit, SERVER_BUSY if another caller took the place
}

// acquire waits for a permit for a caller from the address, which acts on the account. It gives
// SERVER_BUSY if the queue is full of callers with as good a claim.
func (q *queue) acquire(ctx context.Context, address, account string) error {
	w := &waiter{address, account, make(chan error, 1)}
	if granted, err := q.enter(w); granted || err != nil {
		return err
	}
	select {
	case err := <-w.decided:
		return err
	case <-ctx.Done():
	}
	if !q.leave(w) && <-w.decided == nil {
		q.release() // it got the permit at that moment
	}
	return ctx.Err()
}

// enter takes a free permit, or else a place in the queue.
func (q *queue) enter(w *waiter) (granted bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running < q.permits {
		q.running++
		return true, nil
	}
	if q.waiting >= q.places && !q.makeRoom(w) {
		return false, errBusy()
	}
	q.push(w)
	return false, nil
}

// makeRoom refuses the newest waiter of the address that has the most, and there of the account that
// has the most. It reports false if the newcomer would have as many then.
func (q *queue) makeRoom(newcomer *waiter) bool {
	most, own, ownAccount := &addressQueue{}, 0, 0
	for _, a := range q.addresses {
		if a.address == newcomer.address {
			own, ownAccount = a.waiting, a.count(newcomer.account)
		}
		if a.waiting > most.waiting || a.waiting == most.waiting && a.address == newcomer.address {
			most = a
		}
	}
	longest := slices.MaxFunc(most.accounts, func(a, b *accountQueue) int { return len(a.waiters) - len(b.waiters) })
	if most.waiting <= own+1 && (most.address != newcomer.address || len(longest.waiters) <= ownAccount+1) {
		return false
	}
	victim := longest.waiters[len(longest.waiters)-1]
	q.remove(victim)
	victim.decided <- errBusy()
	return true
}

// count returns how many wait for the account.
func (a *addressQueue) count(account string) int {
	for _, c := range a.accounts {
		if c.account == account {
			return len(c.waiters)
		}
	}
	return 0
}

// push appends the waiter to the queue of its account.
func (q *queue) push(w *waiter) {
	q.waiting++
	i := slices.IndexFunc(q.addresses, func(a *addressQueue) bool { return a.address == w.address })
	if i < 0 {
		i = len(q.addresses)
		q.addresses = append(q.addresses, &addressQueue{address: w.address})
	}
	a := q.addresses[i]
	a.waiting++
	j := slices.IndexFunc(a.accounts, func(c *accountQueue) bool { return c.account == w.account })
	if j < 0 {
		j = len(a.accounts)
		a.accounts = append(a.accounts, &accountQueue{account: w.account})
	}
	a.accounts[j].waiters = append(a.accounts[j].waiters, w)
}

// remove takes the waiter out of the queue; it reports false if it is not there any more.
func (q *queue) remove(w *waiter) bool {
	for i, a := range q.addresses {
		if a.address != w.address {
			continue
		}
		for j, c := range a.accounts {
			n := slices.Index(c.waiters, w)
			if n < 0 {
				continue
			}
			q.waiting--
			a.waiting--
			if c.waiters = slices.Delete(c.waiters, n, n+1); len(c.waiters) == 0 {
				a.accounts = slices.Delete(a.accounts, j, j+1)
			}
			if a.waiting == 0 {
				q.addresses = slices.Delete(q.addresses, i, i+1)
			}
			return true
		}
	}
	return false
}

// leave takes a waiter out whose caller has left; it reports false if its wait is decided already.
func (q *queue) leave(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.remove(w)
}

// release gives the permit to the next waiter, and moves its address and its account to the end.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == 0 {
		q.running--
		return
	}
	a := q.addresses[0]
	c := a.accounts[0]
	w := c.waiters[0]
	q.addresses = append(q.addresses[1:], a)
	a.accounts = append(a.accounts[1:], c)
	q.remove(w)
	w.decided <- nil
}

func errBusy() error {
	return fault.New(fault.ServerBusy, "Too many people are signing in right now; try again in a moment.").After(time.Second)
}
