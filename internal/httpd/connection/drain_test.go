package connection_test

import (
	"bufio"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

func TestDrain(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{DrainTime: time.Minute, DrainWindow: 30 * time.Second}, func(w *world) {
		sockets := make([]*client, 10)
		for i := range sockets {
			sockets[i] = w.connect("")
			sockets[i].subscribe("s", "subscription{ticks}")
			<-w.opened
		}
		events := bufio.NewReader(w.request("GET", "/graphql?query=subscription{ticks}", asEvents, "").Body)
		wantEvents(w.t, events, ":")
		single := bufio.NewReader(w.request("GET", "/graphql?token="+w.reserve(nil), asEvents, "").Body)
		wantEvents(w.t, single, ":")
		began := time.Now()
		w.stop()
		first, last := closedAt(sockets, began)
		if last-first < 15*time.Second || last > 31*time.Second {
			t.Errorf("sockets were closed from %v to %v, want them spread over 30 s", first, last)
		}
		for _, body := range []*bufio.Reader{events, single} {
			for block := ":"; block == ":"; {
				block, _ = readEvent(body)
				if want := "retry: 1000\n: The server is stopping; connect again."; block != ":" && block != want {
					t.Errorf("a stream ended with %q, want %q", block, want)
				}
			}
			if block, err := readEvent(body); err == nil {
				t.Errorf("after the last block came %q", block)
			}
		}
		if err := <-w.ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(began); took > 40*time.Second {
			t.Errorf("the server ended after %v, want the drain window", took)
		}
		w.ended <- nil // for the end of the world
	})
}

// closedAt returns when the first and the last of the sockets were closed.
func closedAt(sockets []*client, began time.Time) (first, last time.Duration) {
	type closing struct {
		after time.Duration
		frame frame
	}
	all := make(chan closing)
	for _, c := range sockets {
		go func() {
			f := <-c.queue
			all <- closing{time.Since(began), f}
		}()
	}
	first = time.Hour
	for _, c := range sockets {
		one := <-all
		if got, want := one.frame.String(), `close 1001 "The server is stopping; connect again."`; got != want {
			c.w.t.Errorf("a socket was closed with %s, want %s", got, want)
		}
		first, last = min(first, one.after), max(last, one.after)
	}
	return first, last
}

func TestDrain_cutsClientsThatDoNotGo(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{DrainTime: 20 * time.Second, Streams: connection.Config{StallTime: time.Hour}}, func(w *world) {
		c := w.dialSilently()
		source := <-w.opened
		source <- 1 // and nobody reads it
		synctest.Wait()
		began := time.Now()
		w.stop()
		if err := <-w.ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("the server ended after %v, want the drain time", took)
		}
		_ = c.conn.Close()
		w.ended <- nil
	})
}

func TestDrain_refusesNewConnections(t *testing.T) {
	t.Parallel()
	inWorld(t, httpd.Config{}, func(w *world) {
		busy := w.connect("")
		busy.subscribe("w", "{wait}")
		synctest.Wait()
		w.stop()
		synctest.Wait()
		if _, err := w.ln.dial(); err == nil {
			t.Error("a stopping server accepts connections")
		}
		busy.wantClose(1001, "The server is stopping; connect again.")
		if got := fmt.Sprint(<-w.ended); got != "<nil>" {
			t.Errorf("Run = %v, want nil", got)
		}
		w.ended <- nil
	})
}
