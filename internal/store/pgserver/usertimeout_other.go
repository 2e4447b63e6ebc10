//go:build !linux

package pgserver

import "syscall"

// setUserTimeout does nothing: TCP_USER_TIMEOUT is for Linux. Elsewhere keep-alive and the
// response limit of a statement detect a dead peer.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
