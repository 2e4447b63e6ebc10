package store_test

import (
	"context"
	"database/sql"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// behindProxy opens a new PostgreSQL database through a proxy.
func behindProxy(t *testing.T, cfg store.Config) (*store.DB, *testenv.Proxy) {
	t.Helper()
	u, err := url.Parse(testenv.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	p := testenv.NewProxy(t, u.Host)
	u.Host = p.Addr
	cfg.URL = u.String()
	return testenv.Open(t, cfg), p
}

// fillPool opens n connections that then stay idle in the pool.
func fillPool(t *testing.T, connect func(context.Context) (*sql.Conn, error), n int) {
	t.Helper()
	var open sync.WaitGroup
	gate := make(chan struct{})
	for range n {
		conn, err := connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open.Go(func() {
			<-gate
			_ = conn.Close()
		})
	}
	close(gate)
	open.Wait()
}

func TestPostgres_replaces_connections_that_were_lost_silently(t *testing.T) {
	t.Parallel()
	db, proxy := behindProxy(t, store.Config{StatementTime: time.Hour, MaxConns: 12, WaryReads: true})
	fillPool(t, db.Conn, 12)
	proxy.Lose()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // one second for the first; each of the others would take another
	defer cancel()
	for range 24 {
		if err := db.Ready(ctx); err != nil {
			t.Fatalf("Ready = %v, want a connection that works", err)
		}
	}
}

func TestPostgres_replaces_connections_for_credentials_that_were_lost_silently(t *testing.T) {
	t.Parallel()
	db, proxy := behindProxy(t, store.Config{StatementTime: time.Hour, WaryReads: true})
	who := givenUser(t, db).ID
	fillPool(t, db.CredentialConn, 3)
	proxy.Lose()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for range 8 {
		if _, err := db.Sessions().AccountByID(ctx, who); err != nil {
			t.Fatalf("AccountByID = %v, want a connection that works", err)
		}
	}
}

func TestPostgres_fails_a_statement_without_an_answer(t *testing.T) {
	t.Parallel()
	db, proxy := behindProxy(t, store.Config{StatementTime: 300 * time.Millisecond, MaxConns: 8})
	fillPool(t, db.Conn, 8)
	proxy.Lose()
	failed := make(chan error, 1)
	go func() { failed <- db.Ready(context.WithoutCancel(t.Context())) }()
	select {
	case err := <-failed:
		if fault.From(err).Kind() != fault.KindUnavailable {
			t.Errorf("Ready on a lost connection = %v, want an Unavailable error", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Ready on a lost connection still waits after 10 s, though no statement may take longer than 300 ms")
	}
	if err := db.Ready(t.Context()); err != nil {
		t.Errorf("Ready after that = %v, want a new connection in place of the other lost ones", err)
	}
}

func TestPostgres_does_not_limit_audits_and_migrations(t *testing.T) {
	t.Parallel()
	const limit = 200 * time.Millisecond
	for name, work := range map[string]func(*store.DB, context.Context) error{
		"audit":     func(db *store.DB, ctx context.Context) error { _, err := db.Audit(ctx); return err },
		"migration": (*store.DB).Migrate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, _ := behindProxy(t, store.Config{StatementTime: limit})
			release := db.LockTables(t, "orders", "schema_migrations")
			done := make(chan error, 1)
			go func() { done <- work(db, t.Context()) }()
			select {
			case err := <-done:
				t.Fatalf("it ended with %v, before it could read", err)
			case <-time.After(5 * limit):
			}
			release()
			if err := <-done; err != nil {
				t.Errorf("it ended with %v, though only its statements took long", err)
			}
		})
	}
}

func TestPostgres_statement_timeout_comes_from_the_server(t *testing.T) {
	t.Parallel()
	db, _ := behindProxy(t, store.Config{StatementTime: 300 * time.Millisecond})
	if err := db.Sleep(t.Context()); fault.From(err).Kind() != fault.KindTimeout {
		t.Errorf("a statement of an hour = %v, want the statement_timeout of the server", err)
	}
}
