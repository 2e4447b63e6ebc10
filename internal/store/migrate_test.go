package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"ariga.io/atlas/sql/postgres"
	"ariga.io/atlas/sql/schema"
	"ariga.io/atlas/sql/sqlite"
	"entgo.io/ent/dialect"
	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/ent/migrate/drift"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// openPlain opens a database without the store: no migrations, no pragmas.
func openPlain(t testing.TB, url string) (kind string, db *sql.DB) {
	t.Helper()
	kind, driver, source := dialect.Postgres, "pgx", url
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		kind, driver, source = dialect.SQLite, "sqlite", "file:"+path+"?_pragma=foreign_keys(1)&_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return kind, db
}

func TestMigrations_equal_the_schema(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testenv.SQLite, "postgres": testenv.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			migrated := url(t)
			testenv.Open(t, store.Config{URL: migrated})
			kind, have := openPlain(t, migrated)
			_, scratch := openPlain(t, url(t))
			missing, err := drift.Between(t.Context(), kind, have, scratch)
			if err != nil {
				t.Fatal(err)
			}
			if len(missing) > 0 {
				t.Errorf("the migrations lack what the schema has; run ent/migrate/main.go:\n%s", strings.Join(missing, ";\n"))
			}
		})
	}
}

func TestMigrations_make_the_same_tables_on_both_dialects(t *testing.T) {
	t.Parallel()
	shapes := map[string]map[string]string{}
	for _, url := range []string{testenv.SQLite(t), testenv.Postgres(t)} {
		testenv.Open(t, store.Config{URL: url})
		kind, db := openPlain(t, url)
		shapes[kind] = readSchema(t, kind, db)
	}
	if diff := cmp.Diff(shapes[dialect.SQLite], shapes[dialect.Postgres]); diff != "" {
		t.Errorf("the dialects differ (-sqlite +postgres):\n%s", diff)
	}
}

// readSchema describes of each table what both dialects must agree on.
func readSchema(t testing.TB, kind string, db *sql.DB) map[string]string {
	t.Helper()
	open := sqlite.Open
	if kind == dialect.Postgres {
		open = postgres.Open
	}
	drv, err := open(db)
	if err != nil {
		t.Fatal(err)
	}
	s, err := drv.InspectSchema(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]string{}
	for _, table := range s.Tables {
		var parts []string
		for _, c := range table.Columns {
			parts = append(parts, fmt.Sprintf("column %s, null %t", c.Name, c.Type.Null))
		}
		for _, i := range append(table.Indexes, table.PrimaryKey) {
			parts = append(parts, indexShape(i))
		}
		for _, f := range table.ForeignKeys {
			parts = append(parts, fmt.Sprintf("reference %s to %s", f.Columns[0].Name, f.RefTable.Name))
		}
		for _, a := range table.Attrs {
			if c, ok := a.(*schema.Check); ok {
				parts = append(parts, "check "+c.Name)
			}
		}
		slices.Sort(parts)
		tables[table.Name] = strings.Join(parts, "\n")
	}
	return tables
}

func indexShape(i *schema.Index) string {
	var columns []string
	for _, p := range i.Parts {
		columns = append(columns, p.C.Name)
	}
	return fmt.Sprintf("index %v, unique %t", columns, i.Unique || i.Name == "")
}

func TestMigrate_ten_nodes_start_at_once(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				db, err := store.Open(t.Context(), store.Config{URL: url, Migrate: true})
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				if err := db.Ready(t.Context()); err != nil {
					t.Errorf("ready: %v", err)
				}
				if err := db.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
		}
		wg.Wait()
		_, db := openPlain(t, url)
		var n, versions int
		if err := db.QueryRow(`SELECT COUNT(*), COUNT(DISTINCT version) FROM schema_migrations`).Scan(&n, &versions); err != nil || n == 0 || n != versions {
			t.Errorf("rows and versions of schema_migrations = %d, %d, %v; want each version once", n, versions, err)
		}
	})
}

func TestMigrate_refuses_databases_it_cannot_migrate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, tamper, advice string }{
		{"a database newer than the program",
			`INSERT INTO schema_migrations (version, checksum, applied_at, finished) VALUES ('9999_future', '', '', TRUE)`, "start the newer version"},
		{"a migration that was cut off", `UPDATE schema_migrations SET finished = FALSE`, "finish or undo it by hand"},
		{"a migration that was changed", `UPDATE schema_migrations SET checksum = 'else'`, "restore the file"},
		{"a migration of another build", `UPDATE schema_migrations SET version = '0000_other' WHERE version = '0001_initial'`, "another build"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testenv.EachDB(t, func(t *testing.T, db *store.DB) {
				db.Exec(t, tt.tamper)
				for what, err := range map[string]error{"Migrate": db.Migrate(t.Context()), "Ready": db.Ready(t.Context())} {
					if err == nil || !strings.Contains(err.Error(), tt.advice) {
						t.Errorf("%s = %v, want an error with %q", what, err, tt.advice)
					}
				}
			})
		})
	}
}

func TestReady_asks_for_migrations(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		db, err := store.Open(t.Context(), store.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Ready(t.Context()); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "backplane migrate") {
			t.Errorf("Ready on an empty database = %v, want the advice to migrate", err)
		}
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.Ready(t.Context()); err != nil {
			t.Errorf("Ready after Migrate = %v", err)
		}
	})
}

func TestOpen_Refuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, url, want string }{
		{"an unknown kind of database, naming the known ones", "mysql://root@localhost/x", `"sqlite:" or "postgres://"`},
		{"no URL", "", "sqlite:"},
		{"a database in memory, which two pools would not share", "sqlite::memory:", "needs a file"},
		{"parameters of SQLite", "sqlite:x.db?mode=ro", "no parameters"},
		{"a broken URL, without its password", "postgres://user:geheim@host:port/db", "not a PostgreSQL URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := store.Open(t.Context(), store.Config{URL: tt.url})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("Open(%q) = %v, want an error with %q", tt.url, err, tt.want)
			}
		})
	}
	t.Run("a server that is not there, as unavailable", func(t *testing.T) {
		t.Parallel()
		_, err := store.Open(t.Context(), store.Config{URL: fmt.Sprintf("postgres://u@127.0.0.1:%d/x", testenv.FreePort(t))})
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("Open = %v, want UNAVAILABLE", err)
		}
	})
}

func TestClosed_IsUnavailable(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		for range 2 {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.Users().AnyAdmin(context.Background()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("reading from a closed database gave %v, want UNAVAILABLE", err)
		}
		if _, err := db.PurgeExpired(context.Background()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("writing to a closed database gave %v, want UNAVAILABLE", err)
		}
	})
}
