package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// deadlineRecorder is a response writer that records the deadlines of its connection.
type deadlineRecorder struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlineRecorder) SetReadDeadline(at time.Time) error  { d.read = at; return nil }
func (d *deadlineRecorder) SetWriteDeadline(at time.Time) error { d.write = at; return nil }

// givenCall returns a call whose caller waits for a response.
func givenCall(t *testing.T) (*call, *deadlineRecorder) {
	t.Helper()
	conn := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
	g := &Gateway{cfg: Config{FirstByteTime: time.Minute}, log: slog.New(slog.DiscardHandler)}
	c := &call{gateway: g, writer: &responseWriter{ResponseWriter: conn}, body: &requestBody{}}
	c.ctx, c.cancel = context.WithCancelCause(context.WithValue(t.Context(), callKey{}, c))
	return c, conn
}

// The cancellation wakes the goroutine that writes the problem document, which may write it before
// expire goes on: the deadline that expire sets for a response must not interrupt it.
func TestCall_expire_does_not_interrupt_the_problem_document(t *testing.T) {
	t.Parallel()
	c, conn := givenCall(t)
	cancel := c.cancel
	c.cancel = func(cause error) {
		cancel(cause)
		writeFailure(c.writer, httptest.NewRequestWithContext(c.ctx, http.MethodGet, "/", http.NoBody), c.ctx.Err())
	}
	c.expire(errIdle)
	if conn.Code != http.StatusGatewayTimeout || !conn.write.After(time.Now()) {
		t.Errorf("the caller has until %v to receive status %d, want a later time and 504", conn.write, conn.Code)
	}
}

func TestCall_expire_interrupts_a_response(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(*call, func()){
		"that has begun":            func(c *call, expire func()) { c.writer.WriteHeader(http.StatusOK); expire() },
		"that begins at that time":  func(c *call, expire func()) { expire(); c.writer.WriteHeader(http.StatusOK) },
		"of an upgraded connection": func(c *call, expire func()) { c.writer.begun.Store(true); expire() },
	} {
		c, conn := givenCall(t)
		begin(c, func() { c.expire(errTotal) })
		if conn.write.IsZero() || conn.write.After(time.Now()) || conn.read.IsZero() {
			t.Errorf("%s: the deadlines are %v and %v, want both in the past", name, conn.read, conn.write)
		}
	}
}

// After a call has ended, its connection serves the next request.
func TestTimers_stop_waits_for_an_expiry_that_runs(t *testing.T) {
	t.Parallel()
	begun, release, ended := make(chan struct{}), make(chan struct{}), false
	w := startTimers(time.Nanosecond, 0, func(error) {
		close(begun)
		<-release
		ended = true
	})
	<-begun
	stopped := make(chan bool)
	go func() {
		w.stop()
		stopped <- ended
	}()
	close(release)
	if !<-stopped {
		t.Error("stop returned before the expiry had run")
	}
}
