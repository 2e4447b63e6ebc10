// Package stop tests what may end a server and what may not: the readers of its output, signals,
// and a stop behind a load balancer.
package stop
