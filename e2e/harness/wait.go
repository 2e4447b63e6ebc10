package harness

import (
	"context"
	"testing"
	"time"
)

// Pause waits for the duration, or until ctx is cancelled.
func Pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Eventually polls until the condition holds, for what is promised within a
// second; it fails the test after far longer.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	EventuallyWithin(t, 15*time.Second, what, holds)
}

// EventuallyWithin is eventually for what may take longer.
func EventuallyWithin(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !holds() {
		if ctx.Err() != nil {
			t.Fatalf("waited in vain until %s", what)
		}
		Pause(ctx, 50*time.Millisecond)
	}
}
