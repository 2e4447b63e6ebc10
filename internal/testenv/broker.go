package testenv

import (
	"errors"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// Broker is a private broker that a test may stop and start again.
type Broker struct {
	URL string

	t testing.TB
	b *local.Broker
}

// RedisBroker starts a Redis of the test's own, which keeps what it confirmed.
func RedisBroker(t testing.TB) *Broker {
	t.Helper()
	return broker(t, "Redis", local.RedisBroker)
}

var sharedRabbitMQ = sync.OnceValues(local.RabbitMQ)

// SharedRabbitMQ returns the URL of a RabbitMQ that all tests of a package share,
// so each names what it declares after itself. It ends with the process.
func SharedRabbitMQ(t testing.TB) (url string) {
	t.Helper()
	b, err := sharedRabbitMQ()
	if errors.Is(err, local.ErrMissing) {
		LeaveOut(t, "RabbitMQ", err)
	}
	if err != nil {
		t.Fatalf("start RabbitMQ: %v", err)
	}
	return b.URL
}

// RabbitMQ starts a RabbitMQ of the test's own. That takes seconds of work: a
// test that does not stop it takes the shared one.
func RabbitMQ(t testing.TB) *Broker {
	t.Helper()
	return broker(t, "RabbitMQ", local.RabbitMQ)
}

// NATS starts a NATS server of the test's own, with JetStream.
func NATS(t testing.TB) *Broker {
	t.Helper()
	return broker(t, "NATS", local.NATS)
}

func broker(t testing.TB, name string, start func() (*local.Broker, error)) *Broker {
	t.Helper()
	b, err := start()
	if errors.Is(err, local.ErrMissing) {
		LeaveOut(t, name, err)
	}
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(b.Stop)
	return &Broker{URL: b.URL, t: t, b: b}
}

// Halt ends the broker as a crash would. Its data stay.
func (b *Broker) Halt() {
	b.t.Helper()
	if err := b.b.Halt(); err != nil {
		b.t.Fatalf("halt the broker: %v", err)
	}
}

// Control changes the broker by its control command, as rabbitmqctl is one.
func (b *Broker) Control(args ...string) {
	b.t.Helper()
	if out, err := b.b.Control(args...); err != nil {
		b.t.Fatalf("control the broker by %q: %v: %s", args, err, out)
	}
}

// FlushDefinitions makes RabbitMQ write its exchanges, queues and bindings to disk. It confirms a
// binding before it does so by itself, and forgets it if it is killed in between.
func (b *Broker) FlushDefinitions() {
	b.t.Helper()
	b.Control("eval", "ok = mnesia:sync_log().")
}

// Start starts the broker again after a Halt, on the same address, and returns
// once it is ready.
func (b *Broker) Start() {
	b.t.Helper()
	if err := b.b.Start(); err != nil {
		b.t.Fatalf("start the broker again: %v", err)
	}
}
