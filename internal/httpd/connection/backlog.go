package connection

import (
	"context"
	"sync"
)

// maxBacklog is how many bytes of results may wait on a connection while another of its
// operations is executed.
const maxBacklog = 1 << 20

// backlog counts the results of a connection that are made and not yet written. The zero value
// is empty.
type backlog struct {
	mu    sync.Mutex
	bytes int
	room  chan struct{} // closed when the backlog falls to its limit; nil if no operation waits
}

// awaitRoom waits until at most maxBacklog bytes wait. Its error is that of ctx.
func (b *backlog) awaitRoom(ctx context.Context) error {
	for {
		room := b.roomChannel()
		if room == nil {
			return ctx.Err()
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// roomChannel returns what is closed once there is room, nil if there is room now.
func (b *backlog) roomChannel() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes <= maxBacklog {
		return nil
	}
	if b.room == nil {
		b.room = make(chan struct{})
	}
	return b.room
}

// add counts n bytes more, or fewer if n is negative.
func (b *backlog) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += n
	if b.bytes <= maxBacklog && b.room != nil {
		close(b.room)
		b.room = nil
	}
}
