package testenv

import (
	"path/filepath"
	"testing"

	"github.com/backplane-dev/backplane/internal/store"
)

// DB returns a new, migrated database in a file of its own. It is closed and
// gone after the test.
func DB(t testing.TB) *store.DB {
	t.Helper()
	return Open(t, store.Config{URL: SQLite(t)})
}

// SQLite returns the URL of a database file that does not exist yet.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "test.db")
}

// Open opens and migrates the database of cfg and closes it after the test.
func Open(t testing.TB, cfg store.Config) *store.DB {
	t.Helper()
	cfg.Migrate = true
	db, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open the database: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the database: %v", err)
		}
	})
	return db
}

// EachURL runs a test in parallel on SQLite and PostgreSQL, each time with the
// URL of an empty database.
func EachURL(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"sqlite": SQLite, "postgres": Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, url(t))
		})
	}
}

// EachDB is EachURL for tests that need no more than a migrated database.
func EachDB(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	EachURL(t, func(t *testing.T, url string) { test(t, Open(t, store.Config{URL: url})) })
}
