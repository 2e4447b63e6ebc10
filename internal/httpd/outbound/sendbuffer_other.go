//go:build !linux

package outbound

func limitUnsent(uintptr) {}
