package testenv_test

import (
	"net"
	"testing"

	"backplane/internal/testenv"
)

func TestLink_carries_both_ways_until_it_is_cut(t *testing.T) {
	t.Parallel()
	server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() { // answers each byte with the next one
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for b := make([]byte, 1); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
					b[0]++
					c.Write(b) //nolint:errcheck // the next read tells
				}
			}()
		}
	}()
	link := testenv.NewLink(t, server.Addr().String())
	says := func(c net.Conn) byte {
		b := []byte{'a'}
		if _, err := c.Write(b); err != nil {
			return 0
		}
		if _, err := c.Read(b); err != nil {
			return 0
		}
		return b[0]
	}
	dial := func() net.Conn {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", link.Addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	before := dial()
	if got := says(before); got != 'b' {
		t.Errorf("the server answers %q, want b", got)
	}
	if got := link.Sent(); got != 1 {
		t.Errorf("clients have sent something %d times, want once", got)
	}
	link.Cut()
	if got := says(before); got != 0 {
		t.Errorf("a connection through a cut link answers %q", got)
	}
	if got := says(dial()); got != 0 {
		t.Errorf("a new connection through a cut link answers %q", got)
	}
	link.Mend()
	if got := says(dial()); got != 'b' {
		t.Errorf("the server answers %q through a mended link, want b", got)
	}
}
