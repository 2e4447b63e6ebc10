package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/eventlog"
)

// Finding is an inconsistency in the stored data. A correct database has none.
type Finding struct {
	Check   string // the invariant
	Subject string // id of the row that violates it
	Detail  string
}

// auditCheck is an invariant, as a query for the rows that violate it: subject and
// detail.
type auditCheck struct {
	name  string
	query string
}

// maxFindings is how many findings of one check are reported.
const maxFindings = 20

// completeSince is the time since which a log trimmed by retention has every event. Times
// and positions of concurrent transactions differ, so the oldest 1,000 events are skipped.
const completeSince = `(SELECT MAX(occurred_at) FROM (SELECT occurred_at FROM events WHERE position IS NOT NULL ORDER BY position LIMIT 1000) AS oldest)`

// auditChecks compare rows with the log only where the log still has the first event:
// retention may have deleted the oldest.
var auditChecks = []auditCheck{
	{"stock plus what orders took and did not give back is what was received", `
		SELECT s.product_id, 'stock ' || s.quantity || ', taken ' || COALESCE(t.taken, 0) || ', received ' || s.received
		FROM stocks s LEFT JOIN (
			SELECT i.product_id, SUM(i.quantity) AS taken FROM order_items i JOIN orders o ON o.id = i.order_id
			WHERE NOT o.stock_returned GROUP BY i.product_id
		) t ON t.product_id = s.product_id
		WHERE s.quantity < 0 OR s.quantity + COALESCE(t.taken, 0) <> s.received`},
	{"what was received is what a product began with and its adjustments in the log", `
		SELECT s.product_id, 'began with ' || s.initial || ', adjusted by ' || a.adjusted || ', received ' || s.received
		FROM stocks s JOIN (
			SELECT c.subject_id, COALESCE(SUM(CASE WHEN e.type = 'product.stock_changed' THEN %BY% ELSE 0 END), 0) AS adjusted
			FROM events c JOIN events e ON e.subject_id = c.subject_id WHERE c.type = 'product.created' GROUP BY c.subject_id
		) a ON a.subject_id = s.product_id
		WHERE s.initial + a.adjusted <> s.received`},
	{"every product has a stock", `
		SELECT p.id, 'no stock' FROM products p LEFT JOIN stocks s ON s.product_id = p.id WHERE s.product_id IS NULL`},
	{"the lines of an order add up to its total", `
		SELECT o.id, 'item count ' || o.item_count || ', lines ' || COALESCE(i.lines, 0) || ', total ' || o.total_minor || ', of lines ' || COALESCE(i.total, 0)
		FROM orders o LEFT JOIN (
			SELECT order_id, COUNT(*) AS lines, SUM(total_minor) AS total, MIN(currency) AS low, MAX(currency) AS high FROM order_items GROUP BY order_id
		) i ON i.order_id = o.id
		WHERE COALESCE(i.lines, 0) <> o.item_count OR i.total <> o.total_minor OR i.low <> o.currency OR i.high <> o.currency`},
	{"a line's total is its price times its quantity", `
		SELECT order_id, 'line ' || line FROM order_items WHERE total_minor <> unit_price_minor * quantity`},
	{"every order was placed once in the log", `
		SELECT o.id, 'placed ' || COALESCE(e.placed, 0) || ' times' FROM orders o
		LEFT JOIN (SELECT subject_id, COUNT(*) AS placed FROM events WHERE type = 'order.placed' GROUP BY subject_id) e ON e.subject_id = o.id
		WHERE COALESCE(e.placed, 0) <> 1 AND (COALESCE(e.placed, 0) > 1
			OR NOT EXISTS (SELECT 1 FROM readers WHERE name = '` + eventlog.CleanerLease + `' AND position > 0) OR o.placed_at >= ` + completeSince + `)`},
	{"an order is where its last event left it", `
		SELECT o.id, o.status || ' at version ' || o.version || ', last event ' || e.type || ' at version ' || e.subject_version FROM orders o
		JOIN (SELECT subject_id, MAX(seq) AS seq FROM events WHERE subject_id LIKE 'ord\_%' ESCAPE '\' GROUP BY subject_id) l ON l.subject_id = o.id
		JOIN events e ON e.seq = l.seq
		WHERE o.version <> e.subject_version OR o.status <> CASE e.type WHEN 'order.placed' THEN 'PENDING' WHEN 'order.paid' THEN 'PAID'
			WHEN 'order.shipped' THEN 'SHIPPED' WHEN 'order.delivered' THEN 'DELIVERED' WHEN 'order.cancelled' THEN 'CANCELLED'
			WHEN 'order.refunded' THEN 'REFUNDED' ELSE o.status END`},
	{"a refunded order gave its stock back if it never shipped", `
		SELECT o.id, 'shipped ' || e.shipped || ' times, stock returned: ' || CASE WHEN o.stock_returned THEN 'yes' ELSE 'no' END FROM orders o
		JOIN (SELECT subject_id, SUM(CASE WHEN type = 'order.placed' THEN 1 ELSE 0 END) AS placed, SUM(CASE WHEN type = 'order.shipped' THEN 1 ELSE 0 END) AS shipped
			FROM events WHERE type IN ('order.placed', 'order.shipped') GROUP BY subject_id) e ON e.subject_id = o.id
		WHERE o.status = 'REFUNDED' AND e.placed = 1 AND o.stock_returned = (e.shipped > 0)`},
	{"a user who is marked as ADMIN has the role", `
		SELECT id, roles FROM users WHERE admin <> (',' || roles || ',' LIKE '%,ADMIN,%')`},
	{"nothing personal is left of a deleted user", `
		SELECT u.id, 'password, session, key or snapshot' FROM users u WHERE u.status = 'DELETED' AND NOT EXISTS (SELECT 1 FROM erasures x WHERE x.user_id = u.id) AND (
			EXISTS (SELECT 1 FROM credentials c WHERE c.user_id = u.id) OR EXISTS (SELECT 1 FROM sessions s WHERE s.user_id = u.id)
			OR EXISTS (SELECT 1 FROM api_keys k WHERE k.user_id = u.id)
			OR EXISTS (SELECT 1 FROM events e WHERE e.subject_id = u.id AND e.type <> 'user.deleted' AND CAST(e.data AS text) <> '` + redacted + `')
			OR EXISTS (SELECT 1 FROM dead_letters d WHERE d.user_id = u.id AND d.order_id IS NULL AND d.type <> 'user.deleted' AND CAST(d.data AS text) <> '` + redacted + `'))`},
	{"every idempotency key knows its object", `
		SELECT scope, key FROM idempotency_keys WHERE object_id = ''`},
	{"positions of the log are dense", `
		SELECT 'events', COUNT(position) || ' positions from ' || MIN(position) || ' to ' || MAX(position) FROM events
		HAVING COUNT(position) <> COALESCE(MAX(position) - MIN(position) + 1, 0)`},
	{"the events of a subject have positions in the order in which they were made", `
		SELECT subject_id, 'position ' || position || ' follows ' || before FROM (
			SELECT subject_id, position, LAG(position) OVER (PARTITION BY subject_id ORDER BY seq) AS before FROM events WHERE position IS NOT NULL
		) AS e WHERE position < before`},
	{"the sequencer goes on behind the last position", `
		SELECT 'sequencer', 'head ' || s.head || ', last position ' || e.last FROM sequencer s, (SELECT MAX(position) AS last FROM events) AS e
		WHERE s.head < e.last`},
	{"the log has one timeline", `
		SELECT 'timelines', COUNT(*) || ' rows' FROM timelines HAVING COUNT(*) <> 1`},
}

// fileChecks are for SQLite, whose file other programs may have damaged.
var fileChecks = []auditCheck{
	{"the file is whole", `SELECT 'file', integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'`},
	{"foreign keys name rows", `SELECT "table", 'row ' || COALESCE(rowid, 0) || ' names no row of ' || parent FROM pragma_foreign_key_check`},
}

// Audit checks the invariants of the stored data in one snapshot. It reads every order,
// so it may take long; the server does not run it while serving.
func (db *DB) Audit(ctx context.Context) ([]Finding, error) {
	from, done := db.auditPool()
	defer done()
	raw, err := from.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: db.isPostgres()})
	if err != nil {
		return nil, fmt.Errorf("audit: %w", db.translateError(ctx, err))
	}
	defer raw.Rollback() //nolint:errcheck // the transaction only reads
	c := conn{ExecQuerier: statementObserver{raw, db.cfg.OnStatement}, dialect: db.dialect}
	todo := auditChecks
	if !db.isPostgres() {
		todo = slices.Concat(auditChecks, fileChecks)
	}
	var all []Finding
	for _, check := range todo {
		found, err := c.runCheck(ctx, check)
		if err != nil {
			return nil, fmt.Errorf("audit whether %s: %w", check.name, db.translateError(ctx, err))
		}
		all = append(all, found...)
	}
	return all, nil
}

// auditPool returns the pool that an audit reads from; on PostgreSQL it has no statement
// timeout. The caller calls done at the end.
func (db *DB) auditPool() (from pool, done func()) {
	if !db.isPostgres() {
		return db.read, func() {}
	}
	own := db.openWithoutLimits(statementLimit)
	return own, func() { _ = own.Close() }
}

func (c conn) runCheck(ctx context.Context, k auditCheck) (found []Finding, err error) {
	by := `json_extract(e.data, '$.by')`
	if c.isPostgres() {
		by = `CAST(e.data->>'by' AS bigint)`
	}
	query := strings.ReplaceAll(k.query, "%BY%", by) + fmt.Sprintf(" LIMIT %d", maxFindings)
	err = c.eachRow(ctx, query, nil, func(scan func(...any) error) error {
		f := Finding{Check: k.name}
		err := scan(&f.Subject, &f.Detail)
		found = append(found, f)
		return err
	})
	return found, err
}
