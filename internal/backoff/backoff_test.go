package backoff_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
)

func TestPolicy_Delay(t *testing.T) {
	t.Parallel()
	p := backoff.Policy{First: 100 * time.Millisecond, Max: time.Second}
	for failures, want := range map[int]time.Duration{
		0: 100 * time.Millisecond, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 4: 800 * time.Millisecond,
		5: time.Second, 100: time.Second, 1 << 40: time.Second,
	} {
		for range 100 {
			if got := p.Delay(failures); got < want || got > want+want/2 {
				t.Errorf("Delay(%d) = %v, want %v to half as much again", failures, got, want)
			}
		}
	}
}

func TestSleep_ends_with_its_context(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		backoff.Sleep(ctx, 10*time.Millisecond)
		backoff.Sleep(ctx, time.Hour)
		if got := time.Since(start); got != time.Second {
			t.Errorf("two sleeps took %v, want the second that the context has", got)
		}
	})
}
