package notify

import (
	"context"
	"sync"

	"github.com/backplane-dev/backplane/internal/event"
)

// Memory connects the nodes of one process: the only one of an SQLite file, or
// several in a test.
type Memory struct {
	mu      sync.Mutex
	members []*Member
}

// Member is a node's connection to a Memory. It implements eventlog.Notifier.
type Member struct {
	memory        *Memory
	notifications chan event.Notification
}

// Join returns a new connection, which receives what other members send from now on.
func (m *Memory) Join() *Member {
	b := &Member{m, make(chan event.Notification, 16)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.members = append(m.members, b)
	return b
}

// Notify sends the notification to the other members, and drops it for those whose
// buffer is full. It does not block.
func (b *Member) Notify(_ context.Context, h event.Notification) error {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	for _, other := range b.memory.members {
		if other == b {
			continue
		}
		select {
		case other.notifications <- h:
		default:
		}
	}
	return nil
}

// Listen implements eventlog.Notifier.
func (b *Member) Listen(ctx context.Context, receive func(event.Notification)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-b.notifications:
			receive(h)
		}
	}
}
