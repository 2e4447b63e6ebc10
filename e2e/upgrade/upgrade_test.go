package upgrade

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/ent/migrate"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// nextRelease is a build of the server with more migrations, which this release is compatible with: a new table,
// a column in each of the tables that are changed most, and an index.
func nextRelease(t *testing.T) testenv.Build {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, migrate.Files); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		files, err := fs.Glob(migrate.Files, kind+"/*.sql")
		if err != nil {
			t.Fatal(err)
		}
		compatible := "-- backplane:compatible-from " + strings.TrimSuffix(filepath.Base(files[len(files)-1]), ".sql") + "\n"
		next := []string{`CREATE TABLE next (id text NOT NULL PRIMARY KEY);`}
		for _, table := range []string{"orders", "users", "events", "idempotency_keys"} {
			next = append(next, fmt.Sprintf(`ALTER TABLE %s ADD COLUMN next text NULL;`, table))
		}
		next = append(next, `ALTER TABLE sequencer ADD COLUMN next bigint NOT NULL DEFAULT 0;`)
		for i := range next {
			next[i] = compatible + next[i] + "\n"
		}
		index := compatible + `CREATE INDEX "next_note" ON "orders" ("note");` + "\n"
		if kind == "postgres" {
			index = "-- atlas:txmode none\n" + strings.Replace(index, "INDEX ", "INDEX CONCURRENTLY ", 1)
		}
		for i, text := range append(next, index) {
			if err := os.WriteFile(filepath.Join(dir, kind, fmt.Sprintf("099%d_next.sql", i)), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return testenv.Build{Migrations: dir}
}

// run runs a command of a build on the database of a server.
func run(t *testing.T, build testenv.Build, database string, args ...string) (out string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.BinaryOf(t, build), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), harness.Settings(database, "BACKPLANE_LISTEN=127.0.0.1:0", "BACKPLANE_ADMIN_LISTEN=off")...)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func isReady(p *testenv.Process) bool {
	resp, err := http.Get(p.BaseURL + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// watchReady counts how often a server was not ready, until stop is called.
func watchReady(ctx context.Context, p *testenv.Process) (stop func() (failures int64)) {
	var failed atomic.Int64
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if !isReady(p) {
				failed.Add(1)
			}
			harness.Pause(ctx, 20*time.Millisecond)
		}
	}()
	return func() int64 {
		cancel()
		<-done
		return failed.Load()
	}
}

// TestUpgrade_node_by_node migrates under the load of this release, and serves with both releases at once. No
// request may fail, and this release stays ready until a migration says that it cannot serve on.
func TestUpgrade_node_by_node(t *testing.T) {
	t.Parallel()
	next := nextRelease(t)
	testenv.BinaryOf(t, next) // a build may take longer than an access token is valid
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		settings := harness.Settings(database)
		old := harness.StartServer(t, database)
		shop := harness.OpenShop(t, old, 5, 1<<20, 8)
		unready := watchReady(t.Context(), old)
		var migrated atomic.Bool
		ledgers := make(chan *harness.OrderLedger)
		go func() {
			more := func(int) bool { return !migrated.Load() }
			ledgers <- shop.PlaceOrders(t.Context(), 4, more, harness.Never)
		}()
		if out, err := run(t, next, database, "migrate"); err != nil {
			t.Fatalf("migrate of the next release: %v\n%s", err, out)
		}
		orders := harness.Size(20, 2000)
		isPostgres := strings.HasPrefix(database, "postgres")
		newer := *shop
		if isPostgres { // SQLite has one server
			p := testenv.ServerOf(t, next, settings...)
			newer.Server, newer.Customers = p, nil
			for _, c := range shop.Customers[4:] {
				c.BaseURL = p.BaseURL
				newer.Customers = append(newer.Customers, c)
			}
		} else {
			newer.Customers = shop.Customers[4:]
		}
		later := newer.PlaceOrders(t.Context(), 4, func(n int) bool { return n < orders }, harness.Never)
		migrated.Store(true)
		ledger := <-ledgers
		ledger.Merge("next ", later)
		shop.Verify(t, ledger)
		if n := unready(); n > 0 {
			t.Errorf("/readyz of the release before failed %d times during the upgrade", n)
		}
		if out, err := run(t, testenv.Build{}, database, "doctor"); err != nil || !strings.Contains(out, "0996_next of a newer release") {
			t.Errorf("doctor of the release before: %v\n%s", err, out)
		}
		refuseIncompatible(t, old, database)
	})
}

// refuseIncompatible has the database say that this release cannot serve it.
func refuseIncompatible(t *testing.T, old *testenv.Process, database string) {
	t.Helper()
	driver, source := "pgx", database
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		driver, source = "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `INSERT INTO schema_migrations (version, checksum, applied_at, finished, compatible_from)
		VALUES ('0999_incompatible', '', '', TRUE, '0999_incompatible')`)
	if err != nil {
		t.Fatal(err)
	}
	const sentence = "the database is newer than this program: it has the migration 0999_incompatible"
	harness.Eventually(t, "the release before is not ready, and its log says why", func() bool { return !isReady(old) && strings.Contains(old.Logs(), sentence) })
	old.Stop() // one server at a time serves an SQLite file
	if out, err := run(t, testenv.Build{}, database, "serve"); err == nil || !strings.Contains(out, sentence) {
		t.Errorf("serve of the release before: %v, want %q\n%s", err, sentence, out)
	}
}
