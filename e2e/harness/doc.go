// Package harness drives the built server from outside for the tests in e2e: it starts
// processes on empty databases, calls them over GraphQL and REST as different callers,
// subscribes over WebSocket and server-sent events, and places orders under load.
//
// Each package beside it proves one promise of docs/architecture.md on real servers:
// PostgreSQL, Redis, RabbitMQ, NATS, and as many nodes as the promise speaks of.
package harness
