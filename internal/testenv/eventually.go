package testenv

import (
	"testing"
	"time"
)

// eventuallyLimit is far above what any condition needs, as the machine may be busy.
const eventuallyLimit = 30 * time.Second

// Eventually waits until the condition holds, and fails the test if that takes too long. It is for
// state that gives no signal; a test that can wait for a signal waits for that.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(eventuallyLimit); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", eventuallyLimit, what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
