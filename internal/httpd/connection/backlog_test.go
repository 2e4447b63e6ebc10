package connection

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBacklog_lets_operations_wait_until_it_is_written(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b backlog
		b.add(maxBacklog)
		if err := b.awaitRoom(t.Context()); err != nil {
			t.Errorf("awaitRoom at the limit = %v, want nil", err)
		}
		b.add(1)
		passed := make(chan time.Time, 3)
		for range 3 {
			go func() {
				if err := b.awaitRoom(t.Context()); err == nil {
					passed <- time.Now()
				}
			}()
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.awaitRoom(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("awaitRoom of an operation that was stopped = %v, want its context's error", err)
		}
		begun := time.Now()
		time.AfterFunc(time.Second, func() { b.add(-1) })
		for range 3 {
			if at := <-passed; at.Sub(begun) != time.Second {
				t.Errorf("an operation ran after %v, want once there is room", at.Sub(begun))
			}
		}
	})
}
