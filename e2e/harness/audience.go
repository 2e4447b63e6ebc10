package harness

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// Audience is clients that listen to the whole log at the same time. Each comes
// again at another node when its own is lost, behind the last event it got.
type Audience struct {
	T        *testing.T
	Nodes    []Caller // to listen at, in turn
	After    string   // all begin behind it
	received [][]string
	cancels  []context.CancelFunc
	wg       sync.WaitGroup
	mu       sync.Mutex
}

// Join adds a subscriber over the transport, which resumes at the next node when its own is lost.
func (a *Audience) Join(transport string) {
	ctx, cancel := context.WithCancel(a.T.Context())
	n := len(a.received)
	a.received, a.cancels = append(a.received, nil), append(a.cancels, cancel)
	a.wg.Go(func() {
		last := a.After
		for node := 0; ctx.Err() == nil; node++ {
			l, err := Transports[transport](ctx, a.Nodes[node%len(a.Nodes)], FollowEvents, map[string]any{"after": last})
			for err == nil {
				var m Message
				if m, err = l.Next(); err == nil && m.End == "" {
					last = m.Cursor
				}
				if err == nil && m.End == "" && !m.IsProgress() {
					a.record(n, m)
				}
			}
			Pause(ctx, 20*time.Millisecond) // the node is gone
		}
	})
}

// record keeps the cursor of a message; that of the transport must be that of the
// event.
func (a *Audience) record(n int, m Message) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.Cursor != Text(m.Event, "cursor") || m.Cursor == "" {
		a.T.Errorf("client %d got the cursor %q with the event %v and code %q", n, m.Cursor, m.Event, m.Code)
	}
	a.received[n] = append(a.received[n], m.Cursor)
}

// AwaitEvents waits until each client has heard n events.
func (a *Audience) AwaitEvents(n int) {
	a.T.Helper()
	EventuallyWithin(a.T, 5*time.Minute, fmt.Sprintf("every client has heard %d events", n), func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !slices.ContainsFunc(a.received, func(h []string) bool { return len(h) < n })
	})
}

// Verify waits until the clients have heard all, and compares.
func (a *Audience) Verify(want []string) {
	a.T.Helper()
	a.AwaitEvents(len(want))
	for _, leave := range a.cancels {
		leave()
	}
	a.wg.Wait()
	for n, got := range a.received {
		if !slices.Equal(got, want) {
			a.T.Errorf("client %d heard %d events, and not the %d of the log in its order", n, len(got), len(want))
		}
	}
}
