//go:build !linux

package connection

func limitUnsent(uintptr) {}
