//go:build !unix

package app

// maxDescriptors returns how many files the process may have open; here that is not known.
func maxDescriptors() (n int, known bool) { return 0, false }
