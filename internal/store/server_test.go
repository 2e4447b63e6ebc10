package store_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// onPostgres runs statements on the database of the URL.
func onPostgres(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// through returns the database URL with another host and port.
func through(t *testing.T, database, hosts string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = hosts
	return u.String()
}

// databaseName returns the name of the database of a URL.
func databaseName(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// createProduct stores a product and reads it from the same node.
func createProduct(ctx context.Context, t *testing.T, db *store.DB, sku string) error {
	t.Helper()
	p, s, err := order.NewProduct(order.ProductInput{SKU: sku, Name: sku, Price: money.Money{Minor: 1, Currency: "EUR"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	made, err := db.Products().Create(ctx, claim.None, p, s)
	if err != nil {
		return err
	}
	found, err := db.Products().ByIDs(ctx, []uid.Product{made.ID})
	if err == nil && found[made.ID] == nil {
		t.Errorf("the product %s was stored, and the same node does not find it", sku)
	}
	return err
}

func TestPostgres_session_does_not_depend_on_the_settings_of_the_server(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	var changes []string
	for _, s := range []string{
		"timezone = 'Asia/Tokyo'", "default_transaction_isolation = 'serializable'", "lock_timeout = '1ms'", "statement_timeout = '1h'",
		"idle_in_transaction_session_timeout = '1h'", "jit = on", "synchronous_commit = off", "client_encoding = 'LATIN1'", "datestyle = 'German'",
	} {
		changes = append(changes, "ALTER DATABASE "+databaseName(t, url)+" SET "+s)
	}
	onPostgres(t, url, changes...)
	db := testenv.Open(t, store.Config{URL: url + "&statement_timeout=20000"})
	for name, want := range map[string]string{
		"TimeZone": "UTC", "default_transaction_isolation": "read committed", "lock_timeout": "5s", "statement_timeout": "20s",
		"idle_in_transaction_session_timeout": "10s", "jit": "off", "synchronous_commit": "on", "client_encoding": "UTF8", "application_name": "backplane",
	} {
		if got := db.Setting(t, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := testenv.Open(t, store.Config{URL: url + "&synchronous_commit=remote_apply"}).Setting(t, "synchronous_commit"); got != "remote_apply" {
		t.Errorf("synchronous_commit = %q, want the value of the URL", got)
	}
}

func TestOpen_refuses_a_database_that_is_not_UTF_8(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	name := databaseName(t, url) + "_latin"
	onPostgres(t, url, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
	t.Cleanup(func() { onPostgresLater(t, url, "DROP DATABASE "+name+" WITH (FORCE)") })
	db, err := store.Open(t.Context(), store.Config{URL: strings.Replace(url, databaseName(t, url), name, 1), Migrate: true})
	if err == nil || !strings.Contains(err.Error(), "the database has the encoding LATIN1") {
		t.Errorf("Open = %v, %v, want a refusal that names the encoding", db, err)
	}
}

// onPostgresLater is onPostgres when the context of the test has ended.
func onPostgresLater(t *testing.T, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err == nil {
		_, err = conn.Exec(context.Background(), statement)
		err = errors.Join(err, conn.Close(context.Background()))
	}
	if err != nil {
		t.Error(err)
	}
}

// pair is a primary and its standby behind a proxy that leads to the primary, and a node.
type pair struct {
	primary, standby *testenv.Replica
	proxy            *testenv.Proxy
	db               *store.DB
}

func startPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{primary: testenv.PostgresPrimary(t)}
	p.proxy = testenv.NewProxy(t, p.primary.Address())
	p.db = testenv.Open(t, store.Config{URL: through(t, p.primary.URL, p.proxy.Addr), MaxConns: 8})
	p.standby = p.primary.Standby()
	p.standby.Must(p.primary.Synchronize())
	return p
}

// awaitWrite creates products until one is stored, each of which must be found when it is.
func (p *pair) awaitWrite(t *testing.T, prefix string) {
	t.Helper()
	began, n := time.Now(), 0
	testenv.Eventually(t, "the node writes to the new primary", func() bool {
		n++
		err := createProduct(t.Context(), t, p.db, fmt.Sprint(prefix, n))
		if err != nil && fault.From(err).Kind() != fault.KindUnavailable {
			t.Errorf("while no server can write: %v, want UNAVAILABLE", err)
		}
		return err == nil
	})
	t.Logf("back after %v and %d attempts", time.Since(began), n)
}

func TestFailover_replaces_connections_to_a_primary_that_became_read_only(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	fillPool(t, p.db.Conn, 8)
	fillPool(t, p.db.CredentialConn, 3)
	listener, err := p.db.Connect(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close(context.Background())
	p.primary.Must(p.primary.SetReadOnly())
	p.primary.Must(p.standby.Promote())
	p.proxy.Redirect(p.standby.Address())
	p.awaitWrite(t, "A")
	for n := range 40 { // with whatever connections the pools have
		if err := createProduct(t.Context(), t, p.db, fmt.Sprint("B", n)); err != nil {
			t.Fatalf("after the first write: %v", err)
		}
	}
	if _, err := listener.WaitForNotification(t.Context()); err == nil || t.Context().Err() != nil {
		t.Errorf("the connection that listens to the former primary: %v, want that it was closed", err)
	}
}

func TestFailover_reads_no_longer_from_a_primary_that_lost_its_place(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	p.primary.Must(p.primary.Exec(`ALTER SYSTEM RESET synchronous_standby_names`, `SELECT pg_reload_conf()`)) // the former primary goes on as if it were one
	fillPool(t, p.db.Conn, 7)
	p.primary.Must(p.standby.Promote())
	p.proxy.Redirect(p.standby.Address())
	var held []*sql.Conn
	for range 7 { // hold the old connections, so that the next one is new
		conn, err := p.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	if err := createProduct(t.Context(), t, p.db, "A"); err != nil {
		t.Fatal(err)
	}
	for _, conn := range held {
		_ = conn.Close()
	}
	var reads sync.WaitGroup
	for range 40 { // on all connections that the pool has now
		reads.Go(func() {
			if n, err := p.db.Products().Count(t.Context(), order.ProductFilter{}); n != 1 || err != nil {
				t.Errorf("Count = %d, %v after the node stored a product, want it", n, err)
			}
		})
	}
	reads.Wait()
	if epoch := p.db.ServerEpoch(); epoch != 1 {
		t.Errorf("the server epoch is %d, want 1: a connection led to another server", epoch)
	}
}

func TestFailover_finds_the_primary_among_several_hosts(t *testing.T) {
	t.Parallel()
	primary := testenv.PostgresPrimary(t)
	standby := primary.Standby()
	primary.Must(primary.Synchronize())
	db := testenv.Open(t, store.Config{URL: through(t, primary.URL, standby.Address()+","+primary.Address())})
	if err := createProduct(t.Context(), t, db, "A"); err != nil {
		t.Fatalf("with the standby named first: %v", err)
	}
	p := &pair{primary: primary, standby: standby, db: db}
	p.primary.Must(p.primary.SetReadOnly())
	p.primary.Must(p.standby.Promote())
	p.awaitWrite(t, "B")
}

func TestOpen_names_a_server_that_cannot_write(t *testing.T) {
	t.Parallel()
	primary := testenv.PostgresPrimary(t)
	standby := primary.Standby()
	_, err := store.Open(t.Context(), store.Config{URL: standby.URL})
	if err == nil || !strings.Contains(err.Error(), "the server cannot write: it is a standby, or read-only") {
		t.Errorf("Open of a standby = %v, want that it is one", err)
	}
}

func TestPostgres_waits_for_its_own_connections_when_the_server_has_no_slot(t *testing.T) {
	t.Parallel()
	url := testenv.Postgres(t)
	role := "limited_" + databaseName(t, url)
	onPostgres(t, url, "CREATE ROLE "+role+" LOGIN", "ALTER DATABASE "+databaseName(t, url)+" OWNER TO "+role, "ALTER SCHEMA public OWNER TO "+role)
	t.Cleanup(func() {
		onPostgresLater(t, url, "REASSIGN OWNED BY "+role+" TO backplane")
		onPostgresLater(t, url, "DROP OWNED BY "+role)
		onPostgresLater(t, url, "DROP ROLE "+role)
	})
	db := testenv.Open(t, store.Config{URL: strings.Replace(url, "backplane@", role+"@", 1), MaxConns: 20})
	onPostgres(t, url, "ALTER ROLE "+role+" CONNECTION LIMIT 3")
	var calls sync.WaitGroup
	for n := range 60 {
		calls.Go(func() {
			if err := createProduct(t.Context(), t, db, fmt.Sprint("P", n)); err != nil {
				t.Errorf("call %d: %v, want that it waits for one of the node's three connections", n, err)
			}
		})
	}
	calls.Wait()
}

func TestPostgres_repeats_what_a_dead_connection_did_not_do(t *testing.T) {
	t.Parallel()
	db, proxy := behindProxy(t, store.Config{MaxConns: 8})
	calls := map[string]func() error{
		"a read":        func() error { _, err := db.Products().Count(t.Context(), order.ProductFilter{}); return err },
		"a transaction": func() error { return createProduct(t.Context(), t, db, rand.Text()) },
	}
	for name, call := range calls {
		for kind, kill := range map[string]func(){
			"was cut":                 func() { proxy.Cut(); proxy.Heal() },
			"lost its statements":     func() { deallocateAll(t, db, 8) },
			"was ended by the server": func() { onPostgres(t, db.URL(), endOthers) },
		} {
			fillPool(t, db.Conn, 8)
			for range 8 { // every connection has prepared the statements of the call
				if err := call(); err != nil {
					t.Fatal(err)
				}
			}
			kill()
			for n := range 8 {
				if err := call(); err != nil {
					t.Errorf("%s on a connection that %s, call %d: %v", name, kind, n, err)
				}
			}
		}
	}
}

// endOthers ends all other connections to a database.
const endOthers = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`

// deallocateAll has n connections of the pool forget their prepared statements, as a pooler may have them.
func deallocateAll(t *testing.T, db *store.DB, n int) {
	t.Helper()
	var taken []*sql.Conn
	for range n {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, conn)
	}
	for _, conn := range taken {
		if _, err := conn.ExecContext(t.Context(), `DEALLOCATE ALL`); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

func TestPgBouncer_in_session_mode_works_as_it_is(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.PgBouncer(t, testenv.Postgres(t), "pool_mode = session", "default_pool_size = 30")})
	if got := db.Setting(t, "lock_timeout"); got != "5s" {
		t.Errorf("lock_timeout = %q, want 5s", got)
	}
	if err := createProduct(t.Context(), t, db, "A"); err != nil {
		t.Error(err)
	}
	seq, err := db.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	l, _, err := seq.Acquire(t.Context(), "one", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if n, _, err := seq.AssignPositions(t.Context(), l, time.Minute, 10); n != 1 || err != nil {
		t.Errorf("AssignPositions = %d, %v, want the event of the product", n, err)
	}
}

func TestPgBouncer_in_another_mode_is_refused(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"transaction", "statement"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			url := testenv.PgBouncer(t, testenv.Postgres(t), "pool_mode = "+mode, "default_pool_size = 30")
			db, err := store.Open(t.Context(), store.Config{URL: url, Migrate: true})
			if err == nil || !strings.Contains(err.Error(), "Set pool_mode = session") {
				t.Errorf("Open = %v, %v, want a refusal that names the mode to set", db, err)
			}
		})
	}
}
