// Package sinks proves that Redis Streams, RabbitMQ and NATS JetStream receive every event
// at least once and in order per subject, across broker outages and restarts.
package sinks
