package connection

import (
	"net"
	"syscall"
)

// maxUnsent is how many bytes the system keeps for a client before they are on
// their way. It would keep megabytes, of whose going nothing is seen for minutes
// if the client reads slowly.
const maxUnsent = 64 << 10

// holdLittle lets the system keep little of what a client has not read, where it
// knows how.
func holdLittle(conn net.Conn) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(limitUnsent) // without the limit the client is cut sooner
	}
}
