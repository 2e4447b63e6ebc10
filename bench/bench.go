// Package bench benchmarks the running server from outside, with real processes and
// connections. Compare figures within one run: between machines, and between runs on a
// busy one, only ratios are meaningful.
// Package endtoend, a program, measures requests.
//
//	go test -run '^$' -bench FanOut -benchtime 1x ./bench
package bench
