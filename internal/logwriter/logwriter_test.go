package logwriter_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/logwriter"
)

// output collects what is written; while it is stuck, writes block.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	stuck chan struct{} // closed once the output goes on; nil if it always does
	err   error
}

func (o *output) Write(p []byte) (int, error) {
	if o.stuck != nil {
		<-o.stuck
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	return o.text.Write(p)
}

func (o *output) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

func notice(dropped uint64) []byte { return fmt.Appendf(nil, "%d dropped\n", dropped) }

func TestWriter_keeps_the_order_and_flushes_at_Close(t *testing.T) {
	t.Parallel()
	var out output
	w := logwriter.New(&out, 1<<20, notice)
	var want strings.Builder
	for i := range 1000 {
		fmt.Fprintln(io.MultiWriter(w, &want), "record", i)
	}
	w.Close(time.Minute)
	if out.text.String() != want.String() {
		t.Errorf("the output is %d bytes, want the %d written, in order", out.text.Len(), want.Len())
	}
}

func TestWriter_drops_while_the_output_is_stuck_and_says_so_afterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := output{stuck: make(chan struct{})}
		w := logwriter.New(&out, 20, notice)
		fmt.Fprint(w, "first\n")
		synctest.Wait() // the goroutine is in the output
		for range 5 {
			fmt.Fprint(w, "123456789\n") // two fit
		}
		if w.Dropped() != 3 {
			t.Errorf("%d records were dropped, want 3", w.Dropped())
		}
		close(out.stuck)
		synctest.Wait()
		fmt.Fprint(w, "last\n")
		w.Close(time.Minute)
		if got, want := out.text.String(), "first\n3 dropped\n123456789\n123456789\nlast\n"; got != want {
			t.Errorf("the output is %q, want %q", got, want)
		}
	})
}

func TestWriter_counts_what_the_output_refuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := output{err: errors.New("broken pipe")}
		w := logwriter.New(&out, 1<<10, notice)
		fmt.Fprint(w, "a\n")
		synctest.Wait()
		fmt.Fprint(w, "b\n")
		synctest.Wait()
		out.fail(nil)
		fmt.Fprint(w, "c\n")
		w.Close(time.Minute)
		if got, want := out.text.String(), "2 dropped\nc\n"; got != want {
			t.Errorf("the output is %q, want %q", got, want)
		}
	})
}

func TestWriter_Close_does_not_wait_for_a_stuck_output(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := output{stuck: make(chan struct{})}
		w := logwriter.New(&out, 1<<10, notice)
		fmt.Fprint(w, "a\n")
		start := time.Now()
		w.Close(time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("Close took %s, want its limit of 1s", took)
		}
		close(out.stuck) // lets the goroutine end
	})
}
