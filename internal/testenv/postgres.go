package testenv

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

var postgres = server(local.PostgresURL, local.Postgres)

// Postgres returns the URL of a new, empty database on a real PostgreSQL. It is
// dropped after the test, with whatever connections are still open then.
func Postgres(t testing.TB) string {
	t.Helper()
	admin, err := postgres()
	if err != nil {
		LeaveOut(t, "PostgreSQL", err)
	}
	u, err := url.Parse(admin)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		t.Fatalf("%s must be a URL like postgres://user@host/database: %v", local.PostgresURL, err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	if err := createDatabase(t.Context(), admin, name); err != nil {
		t.Fatalf("create a database: %v", err)
	}
	t.Cleanup(func() {
		if err := onPostgres(context.Background(), admin, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the database of the test: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

// createDatabase copies files rather than writing them through the log: half
// the time where nothing is synced (15 against 30 ms). Servers before version
// 15 know no other way, nor the word for it.
func createDatabase(ctx context.Context, admin, name string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	sql := "CREATE DATABASE " + name + " TEMPLATE template0 ENCODING 'UTF8'"
	var version int
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	if version >= 150000 {
		sql += " STRATEGY file_copy"
	}
	_, err = conn.Exec(ctx, sql)
	return err
}

func onPostgres(ctx context.Context, admin, sql string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}
