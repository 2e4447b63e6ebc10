// Package bench measures the running server from outside, with real processes and
// connections. Figures are compared within one run: between machines, and between
// runs on a busy one, only ratios mean something.
//
//	go test -run '^$' -bench FanOut -benchtime 1x ./bench
package bench
