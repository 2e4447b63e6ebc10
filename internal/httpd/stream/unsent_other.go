//go:build !linux

package stream

func limitUnsent(uintptr) {}
