// Package chaos proves that every subscriber receives exactly the event log, in order,
// while nodes are killed, frozen and cut off from PostgreSQL and Redis, and that a slow
// subscriber costs the others nothing.
package chaos
