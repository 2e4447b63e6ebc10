package testenv_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// echo answers each connection with what it says, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", local.Address(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return ln.Addr().String()
}

// asker says lines and reads them back.
type asker struct {
	net.Conn

	lines *bufio.Reader
}

func newAsker(t *testing.T, addr string) *asker {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &asker{conn, bufio.NewReader(conn)}
}

// receives reports whether the line comes back, in time or after it was said before.
func (a *asker) receives(say, want string, timeout time.Duration) bool {
	_ = a.SetReadDeadline(time.Now().Add(timeout))
	fmt.Fprint(a, say)
	got, err := a.lines.ReadString('\n')
	return err == nil && got == want
}

const long, short = 10 * time.Second, 50 * time.Millisecond

func TestProxy_does_what_networks_do(t *testing.T) {
	t.Parallel()
	p := testenv.NewProxy(t, echo(t))
	first := newAsker(t, p.Addr)
	if !first.receives("one\n", "one\n", long) {
		t.Fatal("nothing gets through")
	}
	if got := p.Sent(); got != 1 {
		t.Errorf("clients have sent something %d times, want once", got)
	}
	p.Stall()
	if first.receives("two\n", "two\n", short) {
		t.Error("something got through while the connection was stalled")
	}
	p.Heal()
	if !first.receives("", "two\n", long) {
		t.Error("what was held up did not come after all")
	}
	p.Lose()
	if first.receives("three\n", "three\n", short) {
		t.Error("something got through a lost connection")
	}
	second := newAsker(t, p.Addr)
	if !second.receives("four\n", "four\n", long) {
		t.Error("a new connection does not work beside a lost one")
	}
	p.Cut()
	if second.receives("five\n", "five\n", long) || newAsker(t, p.Addr).receives("six\n", "six\n", long) {
		t.Error("something got through although all was cut")
	}
	p.Heal()
	if !newAsker(t, p.Addr).receives("seven\n", "seven\n", long) {
		t.Error("a new connection does not work after the cut")
	}
}
