package testenv_test

import (
	"net"
	"net/url"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestBroker_can_be_halted_and_started_again(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB) *testenv.Broker{
		"Redis": testenv.RedisBroker, "RabbitMQ": testenv.RabbitMQ, "NATS": testenv.NATS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			u, err := url.Parse(b.URL)
			if err != nil {
				t.Fatal(err)
			}
			b.Halt()
			if conn, err := net.Dial("tcp", u.Host); err == nil {
				conn.Close()
				t.Errorf("a server listens on %s after Halt", u.Host)
			}
			b.Start()
			conn, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Fatalf("no server listens after Start: %v", err)
			}
			conn.Close()
		})
	}
}
