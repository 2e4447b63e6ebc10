package store

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// boundUnacked makes the kernel give a TCP connection up whose other end does not
// acknowledge what was sent, or what asks whether it is there. Keep-alive alone
// does not count while there is something to send again.
func boundUnacked(network, _ string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedTime.Milliseconds()))
	})
	if err == nil {
		err = failed
	}
	return err
}
