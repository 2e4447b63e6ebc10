//go:build !linux

package store

import "syscall"

// setUserTimeout is for Linux; elsewhere keep-alive and the response
// limit of a statement detect a dead peer.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
