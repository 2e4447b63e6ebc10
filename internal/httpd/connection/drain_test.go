package connection_test

import (
	"bufio"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

func TestDrain_spreads_over_the_window(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{DrainTime: time.Minute, DrainWindow: 30 * time.Second}, func(e *streamtest.Env) {
		sockets := make([]*streamtest.Client, 10)
		for i := range sockets {
			sockets[i] = e.Connect("")
			sockets[i].Subscribe("s", "subscription{ticks}")
			<-e.Sources
		}
		events := bufio.NewReader(e.Request("GET", "/graphql?query=subscription{ticks}", streamtest.AcceptEvents, "").Body)
		e.WantEvents(events, ":")
		single := bufio.NewReader(e.Request("GET", "/graphql?token="+e.Reserve(nil), streamtest.AcceptEvents, "").Body)
		e.WantEvents(single, ":")
		began := time.Now()
		e.Stop()
		first, last := closedAt(t, sockets, began)
		if last-first < 15*time.Second || last > 31*time.Second {
			t.Errorf("sockets were closed from %v to %v, want them spread over 30 s", first, last)
		}
		for _, body := range []*bufio.Reader{events, single} {
			for block := ":"; block == ":"; {
				block, _ = streamtest.ReadEvent(body)
				if want := "retry: 1000\n: The server is stopping; connect again."; block != ":" && block != want {
					t.Errorf("a stream ended with %q, want %q", block, want)
				}
			}
			if block, err := streamtest.ReadEvent(body); err == nil {
				t.Errorf("after the last block came %q", block)
			}
		}
		if err := <-e.Done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("the server ended after %v, want the drain window", took)
		}
		e.Done <- nil // for the end of Run
	})
}

// closedAt returns when the first and the last of the sockets were closed.
func closedAt(t *testing.T, sockets []*streamtest.Client, began time.Time) (first, last time.Duration) {
	t.Helper()
	type closing struct {
		after time.Duration
		frame streamtest.Frame
	}
	all := make(chan closing)
	for _, c := range sockets {
		go func() {
			f := <-c.Frames
			all <- closing{time.Since(began), f}
		}()
	}
	first = time.Hour
	for range sockets {
		one := <-all
		if got, want := one.frame.String(), `close 1001 "The server is stopping; connect again."`; got != want {
			t.Errorf("a socket was closed with %s, want %s", got, want)
		}
		first, last = min(first, one.after), max(last, one.after)
	}
	return first, last
}

func TestDrain_cuts_clients_that_do_not_read(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{DrainTime: 20 * time.Second, Streams: connection.Config{StallTime: time.Hour}}, func(e *streamtest.Env) {
		c := e.DialUnread()
		source := <-e.Sources
		source <- 1 // the client does not read it
		synctest.Wait()
		began := time.Now()
		e.Stop()
		if err := <-e.Done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("the server ended after %v, want the drain time", took)
		}
		_ = c.Conn.Close()
		e.Done <- nil
	})
}

func TestDrain_refuses_new_connections(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		busy := e.Connect("")
		busy.Subscribe("w", "{wait}")
		synctest.Wait()
		e.Stop()
		synctest.Wait()
		if _, err := e.Listener.Dial(); err == nil {
			t.Error("a stopping server accepts connections")
		}
		busy.WantClose(1001, "The server is stopping; connect again.")
		if err := <-e.Done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		e.Done <- nil
	})
}
