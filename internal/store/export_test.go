package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/ent"
	entevent "github.com/backplane-dev/backplane/ent/event"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
)

// Logged is an entry of the log with what readers do not see yet.
type Logged struct {
	event.Event
	Seq      int64
	Position *int64
	Touched  []Touched
}

// Log returns the whole log.
func (db *DB) Log(t testing.TB) []Logged {
	t.Helper()
	rows, err := db.client.Event.Query().Order(ent.Asc(entevent.FieldID)).All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return mapSlice(rows, func(r *ent.Event) Logged {
		l := Logged{Seq: r.ID, Position: r.Position, Event: event.Event{
			ID: r.UID, Type: r.Type, OccurredAt: toMicros(r.OccurredAt), Actor: r.Actor, SubjectID: r.SubjectID, SubjectVersion: r.SubjectVersion, Data: r.Data,
		}}
		if r.UserID != nil {
			l.Related = append(l.Related, string(*r.UserID))
		}
		if r.OrderID != nil {
			l.Related = append(l.Related, string(*r.OrderID))
		}
		if r.Touched != nil {
			if err := json.Unmarshal(r.Touched, &l.Touched); err != nil {
				t.Fatal(err)
			}
		}
		return l
	})
}

// Exec runs a statement as if the database had been changed by hand.
func (db *DB) Exec(t testing.TB, query string, args ...any) {
	t.Helper()
	err := db.inTx(t.Context(), claim.None, func(tx *tx) error {
		tx.dirty = true
		_, err := tx.exec(t.Context(), query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Int runs a query for one number.
func (db *DB) Int(ctx context.Context, t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if _, err := db.readConn().queryRow(ctx, query, args, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Touch runs a transaction that touches a row and records nothing.
func (db *DB) Touch(ctx context.Context) error {
	return db.inTx(ctx, claim.None, func(tx *tx) error {
		tx.touchRow("user", "usr_1", 1)
		return nil
	})
}

// Conn returns a connection of the pool.
func (db *DB) Conn(ctx context.Context) (*sql.Conn, error) { return db.write.Conn(ctx) }

// URL returns the URL of the database.
func (db *DB) URL() string { return db.cfg.URL }

// Setting returns a setting of a session of PostgreSQL.
func (db *DB) Setting(t testing.TB, name string) (value string) {
	t.Helper()
	if _, err := db.readConn().queryRow(t.Context(), "SHOW "+name, nil, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// CredentialConn returns a connection of the pool for reads of credentials.
func (db *DB) CredentialConn(ctx context.Context) (*sql.Conn, error) {
	return db.credentials.read.Conn(ctx)
}

// ReadConn returns a connection of the pool for reads.
func (db *DB) ReadConn(ctx context.Context) (*sql.Conn, error) { return db.read.Conn(ctx) }

// Sleep runs a statement that takes an hour.
func (db *DB) Sleep(ctx context.Context) error {
	_, err := db.readConn().exec(ctx, `SELECT pg_sleep(3600)`)
	return db.translateError(ctx, err)
}

// WriteSortKeys does what a migration does after its statements.
func (db *DB) WriteSortKeys(ctx context.Context) error { return writeSortKeys(ctx, db.writer()) }

// LockTables locks tables of PostgreSQL exclusively until release is called.
func (db *DB) LockTables(t testing.TB, names ...string) (release func()) {
	t.Helper()
	own := db.openWithoutLimits(idleLimit)
	raw, err := own.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.ExecContext(t.Context(), `LOCK TABLE `+strings.Join(names, ", ")+` IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = raw.Rollback()
		_ = own.Close()
	}
}

// CallersWithConnections returns how many callers hold connections of a pool, or wait for one.
func (db *DB) CallersWithConnections() int { return db.readers.shares.Len() + db.writers.shares.Len() }

// HoldConn calls fn while it holds a connection for reads.
func (db *DB) HoldConn(ctx context.Context, fn func()) error {
	return db.readConn().eachRow(ctx, `SELECT 1`, nil, func(func(...any) error) error {
		fn()
		return nil
	})
}

// TempStores returns where SQLite keeps temporary tables, by pool.
func (db *DB) TempStores(t testing.TB) map[string]int {
	t.Helper()
	all := map[string]int{}
	for name, p := range map[string]pool{"reads": db.read, "writes": db.write, "credentials": db.credentials.read, "the log": db.logReader.read} {
		var n int
		c := conn{ExecQuerier: statementObserver{p, nil}, dialect: db.dialect, permits: nil}
		if _, err := c.queryRow(t.Context(), "PRAGMA temp_store", nil, &n); err != nil {
			t.Fatal(err)
		}
		all[name] = n
	}
	return all
}

// Tables returns the names of the tables, in order.
func (db *DB) Tables(t testing.TB) (names []string) {
	t.Helper()
	query := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name`
	if db.isPostgres() {
		query = `SELECT CAST(table_name AS text) FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY CAST(table_name AS text) COLLATE "C"`
	}
	err := db.readConn().eachRow(t.Context(), query, nil, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TableBytes returns how large the table is, with its indexes.
func (db *DB) TableBytes(t testing.TB, table string) int {
	t.Helper()
	if db.isPostgres() {
		return db.Int(t.Context(), t, `SELECT pg_total_relation_size(CAST(CAST(? AS text) AS regclass))`, table)
	}
	return db.Int(t.Context(), t, `SELECT SUM(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_master WHERE tbl_name = ?)`, table)
}

// Vacuum has PostgreSQL reuse the room of dead rows, as it does by itself after a while.
func (db *DB) Vacuum(t testing.TB) {
	t.Helper()
	if !db.isPostgres() {
		return
	}
	if _, err := db.writer().exec(t.Context(), `VACUUM`); err != nil {
		t.Fatal(err)
	}
}

// ExplainLog returns the plans of the statements that read and count events.
func (db *DB) ExplainLog(t testing.TB, f event.Filter, span eventlog.Span) map[string]string {
	t.Helper()
	explain := func(query string, args []any) string {
		prefix := "EXPLAIN QUERY PLAN "
		if db.isPostgres() {
			prefix = "EXPLAIN "
		}
		var plan strings.Builder
		err := db.readConn().eachRow(t.Context(), prefix+query, args, func(scan func(...any) error) error {
			var line string
			fields := []any{&line}
			if !db.isPostgres() {
				fields = []any{new(int), new(int), new(int), &line}
			}
			err := scan(fields...)
			plan.WriteString(line + "\n")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return plan.String()
	}
	plans := map[string]string{}
	plans["read"] = explain(db.readQuery(db.branches(f), span))
	plans["count"] = explain(countQuery(db.branches(f)))
	return plans
}

// ForgetLook has the next AssignPositions look at the locks, as after a second.
func ForgetLook(s *Sequence) { s.low.lookedAt = time.Time{} }

// ForgetWatermark has the sequence know no low watermark.
func ForgetWatermark(s *Sequence) { s.low = lowWatermark{} }
