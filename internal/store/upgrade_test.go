package store_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/backplane-dev/backplane/ent/migrate"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// lastMigration is the newest one of this program.
func lastMigration(t testing.TB) string {
	t.Helper()
	files, err := fs.Glob(migrate.Files, "postgres/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(path.Base(files[len(files)-1]), ".sql")
}

// withMigrations returns the migrations of this program and more of both dialects, by version.
func withMigrations(t testing.TB, more map[string]string) fs.FS {
	t.Helper()
	all := fstest.MapFS{}
	for _, dir := range []string{"sqlite", "postgres"} {
		files, err := fs.Glob(migrate.Files, dir+"/*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := fs.ReadFile(migrate.Files, f)
			if err != nil {
				t.Fatal(err)
			}
			all[f] = &fstest.MapFile{Data: text}
		}
		for version, text := range more {
			all[dir+"/"+version+".sql"] = &fstest.MapFile{Data: []byte(text)}
		}
	}
	return all
}

func openRelease(t testing.TB, cfg store.Config) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestUpgrade_releases_serve_the_schemas_that_name_them(t *testing.T) {
	t.Parallel()
	next := map[string]string{
		"0990_next": "-- backplane:compatible-from " + lastMigration(t) + "\nALTER TABLE users ADD COLUMN next text NOT NULL DEFAULT '';\n",
	}
	afterNext := maps.Clone(next)
	afterNext["0991_after_next"] = "-- backplane:compatible-from 0990_next\nALTER TABLE users ADD COLUMN after_next text NOT NULL DEFAULT '';\n"
	testenv.EachURL(t, func(t *testing.T, url string) {
		releases := []*store.DB{
			openRelease(t, store.Config{URL: url}),
			openRelease(t, store.Config{URL: url, Migrations: withMigrations(t, next)}),
			openRelease(t, store.Config{URL: url, Migrations: withMigrations(t, afterNext)}),
		}
		for schema, want := range [][]string{
			{"", "backplane migrate", "backplane migrate"},
			{"", "", "backplane migrate"},
			{"start the newer version", "", ""},
		} {
			if err := releases[schema].Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			for release, want := range want {
				err := releases[release].Ready(t.Context())
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("release %d on the schema of release %d: Ready = %v, want %q", release, schema, err, want)
				}
				if release >= schema || want != "" {
					continue
				}
				if err := releases[release].Migrate(t.Context()); err != nil {
					t.Errorf("release %d on the schema of release %d: Migrate = %v, want nothing to do", release, schema, err)
				}
			}
		}
		for release, want := range []string{"0991_after_next", "0991_after_next", ""} {
			if got, err := releases[release].NewerMigration(t.Context()); got != want || err != nil {
				t.Errorf("release %d: NewerMigration = %q, %v, want %q", release, got, err, want)
			}
		}
	})
}

func TestUpgrade_serves_databases_without_the_record_of_compatibility(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		db.Exec(t, `ALTER TABLE schema_migrations DROP COLUMN compatible_from`)
		if err := db.Ready(t.Context()); err != nil {
			t.Errorf("Ready = %v", err)
		}
		db.Exec(t, `DELETE FROM schema_migrations WHERE version = ?`, "0990_next")
		next := openRelease(t, store.Config{URL: db.URL(), Migrate: true, Migrations: withMigrations(t, map[string]string{
			"0990_next": "-- backplane:compatible-from " + lastMigration(t) + "\nCREATE TABLE next (id text NOT NULL PRIMARY KEY);\n",
		})})
		for release, db := range []*store.DB{db, next} {
			if err := db.Ready(t.Context()); err != nil {
				t.Errorf("release %d: Ready = %v", release, err)
			}
		}
	})
}

func TestUpgrade_demands_a_decision_on_compatibility(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"none":               "CREATE TABLE next (id text NOT NULL PRIMARY KEY);\n",
		"a later migration":  "-- backplane:compatible-from 0999_other\nCREATE TABLE next (id text NOT NULL PRIMARY KEY);\n",
		"outside of a table": "-- atlas:txmode none\n-- backplane:compatible-from 0990_next\nCREATE TABLE next (id text NOT NULL PRIMARY KEY);\n",
	} {
		_, err := store.Open(t.Context(), store.Config{URL: testenv.SQLite(t), Migrations: withMigrations(t, map[string]string{"0990_next": text})})
		if err == nil || !strings.Contains(err.Error(), "0990_next") {
			t.Errorf("%s: Open = %v, want an error that names the migration", name, err)
		}
	}
}

func TestUpgrade_locks_one_table_at_a_time(t *testing.T) {
	t.Parallel()
	compatible := "-- backplane:compatible-from " + lastMigration(t) + "\n"
	const column = "ALTER TABLE users ADD COLUMN next text NULL;\n"
	for name, test := range map[string]struct{ text, want string }{
		"two tables":              {compatible + column + "ALTER TABLE \"orders\" ADD COLUMN next text NULL;\n", "orders and users"},
		"a table and a key":       {compatible + column + "CREATE TABLE next (order_id text REFERENCES orders (id));\n", "orders and users"},
		"one table":               {compatible + column + column, ""},
		"a new table":             {compatible + column + "CREATE TABLE next (id text);\nALTER TABLE next ADD COLUMN other text;\n", ""},
		"servers must be stopped": {"-- backplane:compatible-from 0990_next\n" + column + "ALTER TABLE orders ADD COLUMN next text NULL;\n", ""},
	} {
		_, err := store.Open(t.Context(), store.Config{URL: "postgres://user@127.0.0.1:1/none", Migrations: withMigrations(t, map[string]string{"0990_next": test.text})})
		if got := fmt.Sprint(err); strings.Contains(got, "in one transaction") != (test.want != "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: Open = %v, want %q", name, err, test.want)
		}
	}
}

// TestMigrations_build_indexes_while_tables_are_used holds the shipped migrations to the rule.
func TestMigrations_build_indexes_while_tables_are_used(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(migrate.Files, "postgres/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	buildsIndex := regexp.MustCompile(`(?m)^CREATE (?:UNIQUE )?INDEX "\w+" ON ("\w+")`)
	for _, f := range files {
		text, err := fs.ReadFile(migrate.Files, f)
		if err != nil {
			t.Fatal(err)
		}
		if path.Base(f) < "0011" {
			continue
		}
		for _, index := range buildsIndex.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(string(text), "CREATE TABLE "+index[1]) {
				t.Errorf("%s: %s blocks changes of the table: build it concurrently, in a migration of its own", f, index[0])
			}
		}
	}
}

func TestUpgrade_repeats_an_index_that_could_not_be_built(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	db.Exec(t, `INSERT INTO settings (name, number) VALUES ('a', 7), ('b', 7)`)
	next := openRelease(t, store.Config{URL: db.URL(), Migrations: withMigrations(t, map[string]string{
		"0990_next": "-- atlas:txmode none\n-- backplane:compatible-from " + lastMigration(t) + "\n" +
			"CREATE INDEX CONCURRENTLY \"next_first\" ON \"settings\" (\"value\");\nCREATE UNIQUE INDEX CONCURRENTLY \"next_second\" ON \"settings\" (\"number\") WHERE number = 7;\n",
	})})
	if err := next.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "next_second") {
		t.Fatalf("Migrate = %v, want the index that could not be built", err)
	}
	if err := db.Ready(t.Context()); err != nil {
		t.Errorf("Ready of the release before, while an index is built = %v", err)
	}
	if err := next.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "backplane migrate") {
		t.Errorf("Ready of the release = %v, want the advice to migrate", err)
	}
	db.Exec(t, `DELETE FROM settings WHERE name = 'b'`)
	if err := next.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := next.Ready(t.Context()); err != nil {
		t.Errorf("Ready after the second try = %v", err)
	}
	valid := db.Int(t.Context(), t, `SELECT COUNT(*) FROM pg_index WHERE indexrelid IN ('next_first'::regclass, 'next_second'::regclass) AND indisvalid`)
	if valid != 2 {
		t.Errorf("valid indexes = %d, want 2", valid)
	}
}

// signalHandler is a log that signals each record with a message.
type signalHandler struct {
	slog.Handler

	message string
	seen    chan struct{}
}

// Enabled implements slog.Handler.
func (h signalHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h signalHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.seen <- struct{}{}
	}
	return nil
}

func TestUpgrade_waits_for_tables_in_use_without_blocking_them(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	log := signalHandler{slog.DiscardHandler, "migration waits: its tables are in use", make(chan struct{}, 100)}
	next := openRelease(t, store.Config{URL: db.URL(), Log: slog.New(log), Migrations: withMigrations(t, map[string]string{
		"0990_next": "-- backplane:compatible-from " + lastMigration(t) + "\nALTER TABLE users ADD COLUMN next text NOT NULL DEFAULT '';\n",
	})})
	release := db.LockTables(t, "users")
	done := make(chan error, 1)
	go func() { done <- next.Migrate(t.Context()) }()
	for range 2 {
		select {
		case <-log.seen:
		case err := <-done:
			t.Fatalf("Migrate = %v, while the table is locked", err)
		}
	}
	release()
	if err := <-done; err != nil {
		t.Errorf("Migrate = %v", err)
	}
	if err := db.Ready(t.Context()); err != nil {
		t.Errorf("Ready of the release before = %v", err)
	}
}
