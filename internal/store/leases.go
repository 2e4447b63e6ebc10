package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	entinstance "github.com/backplane-dev/backplane/ent/instance"
	entservice "github.com/backplane-dev/backplane/ent/service"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// resetLease sets the instance's lease to a whole time to live from now.
func (t *tx) resetLease(ctx context.Context, v *registry.Instance) error {
	now, until := t.db.timeIn(0), t.db.timeIn(v.TTL)
	args := slices.Concat([]any{string(v.ID), v.Incarnation, v.TTL.Milliseconds()}, until.args, now.args)
	t.dirty = true
	_, err := t.exec(ctx, `INSERT INTO leases (instance_id, incarnation, ttl_ms, expires_at, seen_at, inflight)
		VALUES (?, ?, ?, `+until.sql+`, `+now.sql+`, 0)
		ON CONFLICT (instance_id) DO UPDATE SET incarnation = excluded.incarnation, ttl_ms = excluded.ttl_ms,
			expires_at = excluded.expires_at, seen_at = excluded.seen_at, inflight = excluded.inflight,
			checked_at = CASE WHEN leases.incarnation = excluded.incarnation THEN leases.checked_at END`, args...)
	return err
}

// renewBatch bounds the rows of one statement: each has six parameters.
const renewBatch = 1500

// tolerance is dbclock.Tolerance in milliseconds.
var tolerance = strconv.FormatInt(dbclock.Tolerance.Milliseconds(), 10)

// Renew implements registry.Store. Only rows that are there are renewed: what is
// not was removed, and its next heartbeat gets INSTANCE_NOT_FOUND.
func (s Registry) Renew(ctx context.Context, renewals []registry.Renewal) error {
	// Every statement locks its rows in one order, so that nodes do not deadlock.
	sorted := slices.SortedFunc(slices.Values(renewals), func(a, b registry.Renewal) int { return strings.Compare(string(a.Instance), string(b.Instance)) })
	for batch := range slices.Chunk(sorted, renewBatch) {
		var values []string
		var args []any
		for _, r := range batch {
			seen, until := s.db.timeIn(-r.Age), s.db.timeIn(r.TTL-r.Age)
			values = append(values, fmt.Sprintf("(CAST(? AS text), CAST(? AS bigint), CAST(? AS bigint), %s, %s, CAST(? AS bigint))", s.castTime(until), s.castTime(seen)))
			args = append(args, slices.Concat([]any{string(r.Instance), r.Incarnation, r.TTL.Milliseconds()}, until.args, seen.args, []any{r.Inflight})...)
		}
		_, err := s.db.writer().exec(ctx, `WITH r (id, incarnation, ttl_ms, expires_at, seen_at, inflight) AS (VALUES `+strings.Join(values, ", ")+`)
			INSERT INTO leases (instance_id, incarnation, ttl_ms, expires_at, seen_at, inflight)
			SELECT r.id, r.incarnation, r.ttl_ms, r.expires_at, r.seen_at, r.inflight FROM r
			JOIN leases AS l ON l.instance_id = r.id WHERE l.incarnation <= r.incarnation ORDER BY r.id
			ON CONFLICT (instance_id) DO UPDATE SET ttl_ms = excluded.ttl_ms, seen_at = excluded.seen_at, inflight = excluded.inflight,
				expires_at = CASE WHEN leases.expires_at < excluded.expires_at OR leases.expires_at > `+s.db.addMillis(sqlTime{sql: "excluded.seen_at"}, "excluded.ttl_ms + "+tolerance)+` THEN excluded.expires_at ELSE leases.expires_at END
			WHERE leases.incarnation = excluded.incarnation`, args...)
		if err != nil {
			return fmt.Errorf("renew %d leases: %w", len(batch), s.db.translateError(ctx, err))
		}
	}
	return nil
}

func (s Registry) castTime(i sqlTime) string {
	if s.db.isPostgres() {
		return "CAST(" + i.sql + " AS timestamptz)"
	}
	return i.sql
}

// Leases implements registry.Store.
func (s Registry) Leases(ctx context.Context, ids []uid.Instance) (map[uid.Instance]registry.Lease, error) {
	found := make(map[uid.Instance]registry.Lease, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		err := s.db.readConn().eachRow(ctx, `SELECT instance_id, expires_at, seen_at, inflight, checked_at, check_passed, check_ms, check_output FROM leases WHERE instance_id IN (`+paramList(len(some))+`)`, toAnys(some),
			func(scan func(...any) error) error {
				var id uid.Instance
				var l registry.Lease
				var expires, seen instant
				var check checkColumns
				err := scan(&id, &expires, &seen, &l.Inflight, &check.at, &check.passed, &check.millis, &check.output)
				l.ExpiresAt, l.SeenAt, l.Check = expires.Time, seen.Time, check.report()
				found[id] = l
				return err
			})
		if err != nil {
			return nil, fmt.Errorf("read leases: %w", s.db.translateError(ctx, err))
		}
	}
	return found, nil
}

// removalDue is the condition that an instance, named i, has been late for so many times
// its time to live. Its arguments are those of now.
func (db *DB) removalDue(removeAfter int, now sqlTime) string {
	return fmt.Sprintf("%s <= %s", db.addMillis(sqlTime{sql: "i.late_since"}, fmt.Sprintf("%d * i.ttl_ms", removeAfter)), now.sql)
}

// holdsLease checks that the lease is held and not expired, and keeps other owners from acquiring
// it until the commit.
func (t *tx) holdsLease(ctx context.Context, owned lease.Lease) error {
	now := t.db.timeIn(0)
	held, err := t.queryRow(ctx, `SELECT epoch FROM readers WHERE name = ? AND holder = ? AND epoch = ? AND expires_at > `+now.sql+t.lockClause("FOR SHARE"),
		slices.Concat([]any{owned.Name, owned.Owner, owned.Epoch}, now.args), new(int64))
	if err == nil && !held {
		err = lease.ErrLost
	}
	return err
}

// ExtendAllLeases implements registry.ReconcileStore.
func (s Registry) ExtendAllLeases(ctx context.Context, held lease.Lease) error {
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		if err := t.holdsLease(ctx, held); err != nil {
			return err
		}
		until := s.db.timeIn(0)
		fresh := s.db.addMillis(until, "ttl_ms")
		_, err := t.exec(ctx, `UPDATE leases SET expires_at = `+fresh+` WHERE expires_at <> `+fresh, slices.Concat(until.args, until.args)...)
		return err
	})
	if err != nil {
		return fmt.Errorf("extend all leases: %w", err)
	}
	return nil
}

// resetVoidLeases gives leases that end later than any may a time to live from now: they were
// written by a clock that was ahead.
func (s Registry) resetVoidLeases(ctx context.Context) error {
	now, longest := s.db.timeIn(0), s.db.timeIn(registry.MaxTTL+dbclock.Tolerance)
	_, err := s.db.writer().exec(ctx, `UPDATE leases SET expires_at = `+s.db.addMillis(now, "ttl_ms")+` WHERE expires_at > `+longest.sql,
		slices.Concat(now.args, longest.args)...)
	return err
}

// DueServices implements registry.ReconcileStore. Degraded services stay due for as long
// as that lasts, and so do their instances that would be removed otherwise; they come after
// those with a change. The order within a kind is random, so that none starves.
func (s Registry) DueServices(ctx context.Context, grace time.Duration, removeAfter, limit int) ([]uid.Service, error) {
	if err := s.resetVoidLeases(ctx); err != nil {
		return nil, fmt.Errorf("reset void leases: %w", s.db.translateError(ctx, err))
	}
	now, overdue := s.db.timeIn(0), s.db.timeIn(-grace)
	gone := s.db.removalDue(removeAfter, now)
	args := slices.Concat(overdue.args, now.args, now.args, now.args, []any{limit})
	var ids []uid.Service
	err := s.db.readConn().eachRow(ctx, `SELECT id FROM (
			SELECT i.service_id AS id, 0 AS kind FROM leases AS l JOIN instances AS i ON i.id = l.instance_id
			WHERE l.expires_at <= `+overdue.sql+` AND i.late_since IS NULL
		UNION ALL SELECT i.service_id, CASE WHEN l.expires_at > `+now.sql+` THEN 0 ELSE 1 END FROM instances AS i LEFT JOIN leases AS l ON l.instance_id = i.id
			WHERE i.late_since IS NOT NULL AND (l.expires_at > `+now.sql+` OR `+gone+`)
		UNION ALL SELECT id, 1 FROM services WHERE doubted_since IS NOT NULL
		) AS due GROUP BY id ORDER BY MIN(kind), random() LIMIT ?`, args, func(scan func(...any) error) error {
		var id uid.Service
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find due services: %w", s.db.translateError(ctx, err))
	}
	return ids, nil
}

// EvaluateService implements registry.ReconcileStore. The lock of the service keeps instances from
// coming and going meanwhile.
func (s Registry) EvaluateService(ctx context.Context, held lease.Lease, id uid.Service, grace time.Duration, removeAfter int,
	fn func(*registry.Service, []*registry.Instance, map[uid.Instance]registry.LeaseState) error,
) (out *registry.Service, changed []*registry.Instance, err error) {
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		changed = nil
		if err := t.holdsLease(ctx, held); err != nil {
			return err
		}
		row, err := t.ent.Service.Query().Where(entservice.ID(id), t.forUpdate).Only(ctx)
		if err != nil {
			return orMissing(err, registry.ServiceNotFound())
		}
		rows, err := t.ent.Instance.Query().Where(entinstance.ServiceID(id), t.forUpdate).All(ctx)
		if err != nil {
			return err
		}
		states, err := t.leaseStates(ctx, id, grace, removeAfter)
		if err != nil {
			return err
		}
		all := mapSlice(rows, toInstance)
		out = toService(row)
		if err := fn(out, all, states); err != nil {
			return err
		}
		for n, v := range all {
			if v.Version != rows[n].Version {
				changed = append(changed, v)
				if err := t.saveInstance(ctx, v, false); err != nil {
					return err
				}
			}
		}
		return t.saveService(ctx, out, false)
	})
	if err != nil {
		return nil, nil, fmt.Errorf("evaluate service %s: %w", id, err)
	}
	return out, changed, nil
}

func (t *tx) leaseStates(ctx context.Context, id uid.Service, grace time.Duration, removeAfter int) (map[uid.Instance]registry.LeaseState, error) {
	now, overdue := t.db.timeIn(0), t.db.timeIn(-grace)
	gone := t.db.removalDue(removeAfter, now)
	states := map[uid.Instance]registry.LeaseState{}
	err := t.eachRow(ctx, `SELECT i.id, COALESCE(l.expires_at <= `+overdue.sql+`, 1 = 1), COALESCE(l.expires_at > `+now.sql+`, 1 = 0), COALESCE(`+gone+`, 1 = 0)
		FROM instances AS i LEFT JOIN leases AS l ON l.instance_id = i.id WHERE i.service_id = ?`,
		slices.Concat(overdue.args, now.args, now.args, []any{string(id)}), func(scan func(...any) error) error {
			var id uid.Instance
			var v registry.LeaseState
			err := scan(&id, &v.Overdue, &v.Current, &v.RemovalDue)
			states[id] = v
			return err
		})
	return states, err
}

// SyncPicks implements registry.PeerStore, in one transaction.
func (s Registry) SyncPicks(ctx context.Context, node string, ttl time.Duration, calls map[uid.Instance]int, out []registry.Outcome) (remote map[uid.Instance]int, in []registry.Outcome, err error) {
	text, err := json.Marshal(calls)
	if err != nil {
		return nil, nil, err
	}
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		remote, in = map[uid.Instance]int{}, nil
		if err := t.announceNode(ctx, node, ttl, string(text)); err != nil {
			return err
		}
		if err := t.insertOutcomes(ctx, out); err != nil {
			return err
		}
		if err := t.sumRemoteInflight(ctx, node, remote); err != nil {
			return err
		}
		return t.eachRow(ctx, `DELETE FROM outcomes WHERE picker_id = ? RETURNING id, ok, latency_ms`, []any{node}, func(scan func(...any) error) error {
			o := registry.Outcome{Node: node}
			var millis int64
			err := scan(&o.Pick, &o.OK, &millis)
			o.Took = time.Duration(millis) * time.Millisecond
			in = append(in, o)
			return err
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("sync picks with other nodes: %w", err)
	}
	return remote, in, nil
}

// announceNode stores the node's calls in flight, and removes expired nodes and outcomes that no node
// collected.
func (t *tx) announceNode(ctx context.Context, node string, ttl time.Duration, calls string) error {
	now, until := t.db.timeIn(0), t.db.timeIn(ttl)
	_, err := t.exec(ctx, `INSERT INTO pickers (id, expires_at, calls) VALUES (?, `+until.sql+`, ?)
		ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, calls = excluded.calls`, slices.Concat([]any{node}, until.args, []any{calls})...)
	if err != nil {
		return err
	}
	old := t.db.timeIn(-10 * ttl)
	void := t.db.timeIn(ttl + dbclock.Tolerance) // was written by a clock that was ahead
	if _, err := t.exec(ctx, `DELETE FROM pickers WHERE expires_at <= `+now.sql+` OR expires_at > `+void.sql, slices.Concat(now.args, void.args)...); err != nil {
		return err
	}
	_, err = t.exec(ctx, `DELETE FROM outcomes WHERE reported_at <= `+old.sql, old.args...)
	return err
}

func (t *tx) insertOutcomes(ctx context.Context, out []registry.Outcome) error {
	for batch := range slices.Chunk(out, 1000) {
		now := t.db.timeIn(0)
		var args []any
		for _, o := range batch {
			args = append(args, slices.Concat([]any{o.Pick, o.Node, o.OK, o.Took.Milliseconds()}, now.args)...)
		}
		tuple := "(?, ?, ?, ?, " + now.sql + ")"
		_, err := t.exec(ctx, `INSERT INTO outcomes (id, picker_id, ok, latency_ms, reported_at) VALUES `+
			strings.TrimSuffix(strings.Repeat(tuple+", ", len(batch)), ", ")+` ON CONFLICT (id) DO NOTHING`, args...)
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) sumRemoteInflight(ctx context.Context, node string, sum map[uid.Instance]int) error {
	return t.eachRow(ctx, `SELECT calls FROM pickers WHERE id <> ?`, []any{node}, func(scan func(...any) error) error {
		var text []byte
		if err := scan(&text); err != nil {
			return err
		}
		var calls map[uid.Instance]int
		if err := json.Unmarshal(text, &calls); err != nil {
			return fmt.Errorf("decode the calls of a node: %w", err)
		}
		for id, n := range calls {
			sum[id] += n
		}
		return nil
	})
}
