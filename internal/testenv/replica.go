package testenv

import (
	"errors"
	"net/url"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// Replica is a private PostgreSQL server that can have a standby, or is one. Its methods are for the
// goroutine of the test, which fails if they do.
type Replica struct {
	*local.Replica

	t testing.TB
}

// PostgresPrimary starts a PostgreSQL server of the test's own, with settings such as max_connections=30.
func PostgresPrimary(t testing.TB, settings ...string) *Replica {
	t.Helper()
	return newReplica(t, func() (*local.Replica, error) { return local.PostgresPrimary(settings...) })
}

// Standby starts a standby of the server, and returns once it follows.
func (r *Replica) Standby(settings ...string) *Replica {
	r.t.Helper()
	return newReplica(r.t, func() (*local.Replica, error) { return r.Replica.Standby(settings...) })
}

func newReplica(t testing.TB, start func() (*local.Replica, error)) *Replica {
	t.Helper()
	r, err := start()
	if errors.Is(err, local.ErrMissing) {
		LeaveOut(t, "PostgreSQL", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return &Replica{r, t}
}

// Must fails the test if a step did.
func (r *Replica) Must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// PgBouncer starts a connection pooler before the database of the URL, with lines of its configuration such
// as "pool_mode = session", and returns the URL that leads through it.
func PgBouncer(t testing.TB, database string, config ...string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	s, err := local.PgBouncer(u.Host, config...)
	if errors.Is(err, local.ErrMissing) {
		LeaveOut(t, "PgBouncer", err)
	}
	if err != nil {
		t.Fatalf("start PgBouncer: %v", err)
	}
	t.Cleanup(s.Stop)
	u.Host = s.URL
	return u.String()
}

// TCPBalancer starts HAProxy before servers at the addresses, with a way to put another server in the place of
// one. Its URL is its own address.
func TCPBalancer(t testing.TB, addresses ...string) *local.Balancer {
	t.Helper()
	b, err := local.HAProxy(addresses...)
	if errors.Is(err, local.ErrMissing) {
		LeaveOut(t, "HAProxy", err)
	}
	if err != nil {
		t.Fatalf("start HAProxy: %v", err)
	}
	t.Cleanup(b.Stop)
	return b
}
