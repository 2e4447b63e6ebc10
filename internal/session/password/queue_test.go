package password

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// queueTest is a Hasher with one permit, whose hashes run one at a time when the test says so.
type queueTest struct {
	t    *testing.T
	h    *Hasher
	next chan struct{} // lets one hash run

	mu     sync.Mutex
	served []string // names of callers, in the order of their outcomes
	busy   []string
}

func newQueueTest(t *testing.T, places int) *queueTest {
	t.Helper()
	q := &queueTest{t: t, next: make(chan struct{})}
	q.h = hasherWith(1, places, func() { <-q.next })
	return q
}

// start begins to hash for the account from the address, and waits until that waits.
func (q *queueTest) start(ctx context.Context, name, address, account string) {
	q.t.Helper()
	go func() {
		_, err := q.h.Hash(auth.WithClient(ctx, auth.Client{Address: address}), account, password)
		q.mu.Lock()
		defer q.mu.Unlock()
		switch {
		case err == nil:
			q.served = append(q.served, name)
		case fault.Is(err, fault.ServerBusy):
			q.busy = append(q.busy, name)
		}
	}()
	synctest.Wait()
}

// flood starts n hashes for the account from the address.
func (q *queueTest) flood(n int, address, account string) {
	q.t.Helper()
	for range n {
		q.start(q.t.Context(), "flood", address, account)
	}
}

// serve lets all that wait hash, and returns the place of the name among those served.
func (q *queueTest) serve(name string) int {
	for {
		synctest.Wait()
		select {
		case q.next <- struct{}{}:
		default:
			q.mu.Lock()
			defer q.mu.Unlock()
			return slices.Index(q.served, name)
		}
	}
}

func TestHasher_serves_other_callers_before_a_flood(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		flood            func(q *queueTest)
		address, account string
		place            int // of the other caller, at most
	}{
		"of one address":                {func(q *queueTest) { q.flood(8, "192.0.2.1", "eve") }, "192.0.2.2", "ada", 2},
		"of a full queue":               {func(q *queueTest) { q.flood(30, "192.0.2.1", "eve") }, "192.0.2.2", "ada", 2},
		"of many accounts":              {func(q *queueTest) { q.floodAccounts(30, "192.0.2.1") }, "192.0.2.2", "ada", 2},
		"of a few addresses":            {func(q *queueTest) { q.floodAddresses(3, 10) }, "198.51.100.1", "ada", 4},
		"of one IPv6 network":           {func(q *queueTest) { q.floodNetwork(30) }, "2001:db8:0:1::1", "ada", 2},
		"of one account at the address": {func(q *queueTest) { q.flood(30, "192.0.2.1", "eve") }, "192.0.2.1", "ada", 2},
		"at the account from elsewhere": {func(q *queueTest) { q.flood(30, "192.0.2.1", "ada") }, "192.0.2.2", "ada", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := newQueueTest(t, 10)
				tt.flood(q)
				q.start(t.Context(), "other", tt.address, tt.account)
				if at := q.serve("other"); at < 0 || at > tt.place {
					t.Errorf("the other caller was served at place %d of %v, busy %v; want at most %d", at, q.served, q.busy, tt.place)
				}
				if q.h.queue.running != 0 || q.h.queue.waiting != 0 || len(q.h.queue.addresses) != 0 {
					t.Errorf("afterwards the queue is %+v, want it empty", q.h.queue)
				}
			})
		})
	}
}

func (q *queueTest) floodAccounts(n int, address string) {
	for i := range n {
		q.flood(1, address, fmt.Sprint("eve", i))
	}
}

func (q *queueTest) floodAddresses(addresses, each int) {
	for range each {
		for i := range addresses {
			q.flood(1, fmt.Sprint("192.0.2.", i), fmt.Sprint("eve", i))
		}
	}
}

func (q *queueTest) floodNetwork(n int) {
	for i := range n {
		q.flood(1, fmt.Sprintf("2001:db8::%x", i+1), "eve")
	}
}

func TestHasher_refuses_no_more_than_a_full_queue_must(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueueTest(t, 4)
		q.flood(5, "192.0.2.1", "eve") // one hashes, four wait
		for i := range 4 {
			q.start(t.Context(), fmt.Sprint("other", i), "192.0.2.2", fmt.Sprint("user", i))
		}
		q.serve("")
		want := []string{"flood", "flood", "other0", "flood", "other1"}
		if !slices.Equal(q.served, want) || !slices.Equal(q.busy, []string{"flood", "flood", "other2", "other3"}) {
			t.Errorf("served %v and refused %v, want %v served", q.served, q.busy, want)
		}
	})
}

func TestHasher_forgets_waiters_that_leave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueueTest(t, 10)
		ctx, cancel := context.WithCancel(t.Context())
		q.start(t.Context(), "first", "192.0.2.1", "eve")
		for i := range 5 {
			q.start(ctx, "gone", fmt.Sprint("192.0.2.", i), "eve")
		}
		q.start(t.Context(), "last", "192.0.2.9", "ada")
		cancel()
		synctest.Wait()
		if at := q.serve("last"); at != 1 || len(q.served) != 2 {
			t.Errorf("served %v, want the first and the last caller", q.served)
		}
	})
}
