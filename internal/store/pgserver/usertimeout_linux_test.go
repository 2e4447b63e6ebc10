package pgserver

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

func TestDial_sets_the_TCP_user_timeout(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", local.Address(0))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if e := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	if time.Duration(got)*time.Millisecond != userTimeout {
		t.Errorf("TCP_USER_TIMEOUT = %d ms, want %v", got, userTimeout)
	}
}
