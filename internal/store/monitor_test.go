package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestMonitor_notices_an_SQLite_file_without_room(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.SQLite(t)})
	m := db.NewMonitor()
	if err := m.Look(t.Context()); err != nil {
		t.Fatalf("Look = %v, want nil", err)
	}
	db.Exec(t, "PRAGMA max_page_count = 150")
	for n := 0; ; n++ {
		if err := createProduct(t.Context(), t, db, fmt.Sprint("P", n)); err != nil {
			break
		}
	}
	for range 2 {
		if err := m.Look(t.Context()); fault.From(err).Kind() != fault.KindUnavailable || !strings.Contains(err.Error(), "cannot store") {
			t.Errorf("Look at a full file = %v, want that it cannot store", err)
		}
	}
	db.Exec(t, "PRAGMA max_page_count = 1000000")
	if err := m.Look(t.Context()); err != nil {
		t.Errorf("Look with room again = %v, want nil", err)
	}
}

func TestMonitor_notices_a_PostgreSQL_server_without_room(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.Postgres(t)})
	m := db.NewMonitor()
	// What needs room is refused as on a full disk; changes of rows are not.
	const refuse = `LANGUAGE plpgsql AS $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$`
	onPostgres(t, db.URL(),
		`CREATE FUNCTION refuse_table() RETURNS event_trigger `+refuse, `CREATE FUNCTION refuse_row() RETURNS trigger `+refuse,
		`CREATE EVENT TRIGGER full_disk ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse_table()`,
		`CREATE TRIGGER full_disk BEFORE INSERT ON products FOR EACH ROW WHEN (NEW.sku = 'large') EXECUTE FUNCTION refuse_row()`)
	if err := createProduct(t.Context(), t, db, "large"); fault.From(err).Kind() != fault.KindUnavailable {
		t.Fatalf("a change without room = %v, want UNAVAILABLE", err)
	}
	if err := createProduct(t.Context(), t, db, "small"); err != nil {
		t.Fatal(err)
	}
	for name, look := range map[string]func(context.Context) error{"the node": m.Look, "a command": db.CheckWritable} {
		if err := look(t.Context()); fault.From(err).Kind() != fault.KindUnavailable || !strings.Contains(err.Error(), "cannot store") {
			t.Errorf("%s finds %v on a full disk, though small changes are stored; want that it cannot store", name, err)
		}
	}
	onPostgres(t, db.URL(), `DROP EVENT TRIGGER full_disk`)
	for name, look := range map[string]func(context.Context) error{"the node": m.Look, "a command": db.CheckWritable} {
		if err := look(t.Context()); err != nil {
			t.Errorf("%s finds %v with room again", name, err)
		}
	}
	if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM pg_class WHERE relname = 'space_probe'`); n != 0 {
		t.Error("the look leaves a table")
	}
}

func TestMonitor_notices_a_PostgreSQL_server_that_cannot_write(t *testing.T) {
	t.Parallel()
	primary := testenv.PostgresPrimary(t)
	db := testenv.Open(t, store.Config{URL: primary.URL})
	m := db.NewMonitor()
	if err := m.Look(t.Context()); err != nil {
		t.Fatalf("Look = %v, want nil", err)
	}
	primary.Must(primary.SetReadOnly())
	testenv.Eventually(t, "the monitor notices it", func() bool { return m.Look(t.Context()) != nil })
	if err := m.Look(t.Context()); fault.From(err).Kind() != fault.KindUnavailable || !strings.Contains(err.Error(), "cannot write") {
		t.Errorf("Look at a read-only server = %v, want that it cannot write", err)
	}
	if db.ServerEpoch() == 0 {
		t.Error("the server epoch is still that of before: other pools go on with their connections")
	}
	primary.Must(primary.SetWritable())
	testenv.Eventually(t, "the monitor notices that it can write again", func() bool { return m.Look(t.Context()) == nil })
}
