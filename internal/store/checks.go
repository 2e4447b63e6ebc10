package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/registry"
)

// checkBatch bounds the rows of one statement: each has six parameters.
const checkBatch = 1500

// RecordChecks implements registry.ReconcileStore. Its statements lock leases in the order of Renew, so that they do
// not deadlock with it; like that they insert nothing, as each row that they select is there.
func (s Registry) RecordChecks(ctx context.Context, held lease.Lease, reports map[registry.InstanceStart]registry.CheckReport) error {
	starts := slices.SortedFunc(maps.Keys(reports), func(a, b registry.InstanceStart) int {
		return strings.Compare(string(a.Instance), string(b.Instance))
	})
	for batch := range slices.Chunk(starts, checkBatch) {
		err := s.db.inTx(ctx, claim.None, func(t *tx) error {
			t.dirty = true
			if err := t.holdsLease(ctx, held); err != nil {
				return err
			}
			return t.saveChecks(ctx, batch, reports)
		})
		if err != nil {
			return fmt.Errorf("record %d checks: %w", len(batch), err)
		}
	}
	return nil
}

func (t *tx) saveChecks(ctx context.Context, starts []registry.InstanceStart, reports map[registry.InstanceStart]registry.CheckReport) error {
	row := "(CAST(? AS text), CAST(? AS bigint), " + Registry{t.db}.castTime(sqlTime{sql: "?"}) + ", " + t.db.castBool("?") + ", CAST(? AS bigint), CAST(? AS text))"
	args := make([]any, 0, 6*len(starts))
	for _, start := range starts {
		r := reports[start]
		args = append(args, string(start.Instance), start.Incarnation, toMicros(r.At), r.Passed, r.Took.Milliseconds(), r.Output)
	}
	_, err := t.exec(ctx, `WITH c (id, incarnation, checked_at, check_passed, check_ms, check_output) AS (VALUES `+strings.TrimSuffix(strings.Repeat(row+", ", len(starts)), ", ")+`)
		INSERT INTO leases (instance_id, incarnation, ttl_ms, expires_at, seen_at, inflight, checked_at, check_passed, check_ms, check_output)
		SELECT c.id, c.incarnation, l.ttl_ms, l.expires_at, l.seen_at, l.inflight, c.checked_at, c.check_passed, c.check_ms, c.check_output FROM c
		JOIN leases AS l ON l.instance_id = c.id WHERE l.incarnation = c.incarnation ORDER BY c.id
		ON CONFLICT (instance_id) DO UPDATE SET checked_at = excluded.checked_at, check_passed = excluded.check_passed,
			check_ms = excluded.check_ms, check_output = excluded.check_output
		WHERE leases.incarnation = excluded.incarnation`, args...)
	return err
}

// castBool returns the expression as a truth value.
func (db *DB) castBool(expression string) string {
	if db.isPostgres() {
		return "CAST(" + expression + " AS boolean)"
	}
	return expression
}

// checkColumns are the columns of the last check.
type checkColumns struct {
	at     *instant
	passed *bool
	millis *int64
	output *string
}

// report returns the last check, nil if there was none.
func (c *checkColumns) report() *registry.CheckReport {
	if c.at == nil || c.passed == nil || c.millis == nil || c.output == nil {
		return nil
	}
	return &registry.CheckReport{At: c.at.Time, Passed: *c.passed, Took: time.Duration(*c.millis) * time.Millisecond, Output: *c.output}
}
