package outbound

import (
	"net"
	"syscall"
)

// maxUnsentBytes is how much the kernel buffers for a client before it is on its way. It would
// buffer megabytes, whose progress cannot be seen for minutes if the client reads slowly.
const maxUnsentBytes = 64 << 10

// LimitSendBuffer bounds what the kernel buffers for a slow client (TCP_NOTSENT_LOWAT), on
// systems that can.
func LimitSendBuffer(conn net.Conn) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(limitUnsent) // without the limit a slow client is cut sooner
	}
}
