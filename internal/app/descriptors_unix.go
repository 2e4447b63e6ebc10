//go:build unix

package app

import (
	"math"
	"syscall"
)

// maxDescriptors returns how many files the process may have open. The Go runtime has raised the
// soft limit to the hard one.
func maxDescriptors() (n int, known bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return int(min(limit.Cur, math.MaxInt32)), true
}
