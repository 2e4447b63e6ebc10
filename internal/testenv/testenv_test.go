package testenv_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"backplane/internal/testenv"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	t.Run("gives each test an empty database of its own", func(t *testing.T) {
		t.Parallel()
		for range 2 {
			conn, err := pgx.Connect(t.Context(), testenv.Postgres(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), "CREATE TABLE things (id int)"); err != nil {
				t.Errorf("create a table in a new database: %v", err)
			}
		}
	})
}
