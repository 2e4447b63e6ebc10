package store

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/uid"
)

// keyRetention is how long a call is stored under its idempotency key. A key that a clock which was
// ahead has written guards its call until then, too: to repeat a call does more harm than to
// recognize it for longer. A key of still later is void.
const keyRetention = 24 * time.Hour

// claimRow is the row that a transaction has inserted for its claim, and its result object.
type claimRow struct {
	scope, key string
	object     string
	version    int
	complete   bool // the row is complete already
}

// replay is the error inside inTx that the call was made before, with its result
// object. It never leaves the package.
type replay struct{ object string }

func (r *replay) Error() string { return "this call was made before and its result is " + r.object }

// insertClaim inserts the row of the claim, if there is one, as the first statement.
func (t *tx) insertClaim(ctx context.Context, cl claim.Claim) error {
	switch cl := cl.(type) {
	case claim.Call:
		return t.claimCall(ctx, cl)
	case claim.Delivery:
		return t.claimDelivery(ctx, cl)
	}
	if cl != claim.None {
		return fmt.Errorf("a transaction got the claim %v; without a claim it gets claim.None", cl)
	}
	return nil
}

// claimCall claims the idempotency key of a call. A duplicate waits here for the first
// call and then gets its result object.
func (t *tx) claimCall(ctx context.Context, call claim.Call) error {
	row := &claimRow{scope: string(call.Caller), key: call.Key}
	now := t.db.clock.Now()
	n, err := t.exec(ctx, `INSERT INTO idempotency_keys (scope, key, fingerprint, object_id, object_version, created_at, expires_at)
		VALUES (?, ?, ?, '', 0, ?, ?)
		ON CONFLICT (scope, key) DO UPDATE SET fingerprint = excluded.fingerprint, object_id = '', object_version = 0,
			created_at = excluded.created_at, expires_at = excluded.expires_at
		WHERE idempotency_keys.expires_at <= excluded.created_at OR idempotency_keys.expires_at > ?`,
		row.scope, row.key, call.Fingerprint[:], now, now.Add(keyRetention), now.Add(2*keyRetention))
	switch {
	case isCode(err, lockNotAvailable):
		return inFlight.Because(err)
	case err != nil:
		return err
	case n == 1:
		t.claimed = row
		return nil
	}
	return t.answerDuplicate(ctx, row, call.Fingerprint)
}

// answerDuplicate returns a *replay if the key was used for the same call, else why it is refused.
func (t *tx) answerDuplicate(ctx context.Context, row *claimRow, fingerprint [32]byte) error {
	var first []byte
	var object string
	found, err := t.queryRow(ctx, `SELECT fingerprint, object_id FROM idempotency_keys WHERE scope = ? AND key = ?`,
		[]any{row.scope, row.key}, &first, &object)
	switch {
	case err != nil:
		return err
	case !found: // purged between the two statements
		return inFlight
	case subtle.ConstantTimeCompare(first, fingerprint[:]) != 1:
		return keyReused
	}
	return &replay{object}
}

// IsKeyUsed reports whether a call of the user under the idempotency key has taken effect, and
// would find its claim.
func (db *DB) IsKeyUsed(ctx context.Context, by uid.User, key string) (bool, error) {
	var one int
	found, err := db.readConn().queryRow(ctx, `SELECT 1 FROM idempotency_keys WHERE scope = ? AND key = ? AND expires_at > ?`,
		[]any{string(by), key, db.clock.Now()}, &one)
	return found, db.translateError(ctx, err)
}

// setResultObject sets the object that the transaction makes or changes, for duplicates of the call.
func (t *tx) setResultObject(id string, version int) {
	if t.claimed != nil {
		t.claimed.object, t.claimed.version = id, version
	}
}

// completeClaim stores the result object of the claim.
func (t *tx) completeClaim(ctx context.Context) error {
	row := t.claimed
	if row == nil || row.complete {
		return nil
	}
	if row.object == "" {
		return errors.New("a transaction that claims a call must set its result object")
	}
	return t.queue(ctx, `UPDATE idempotency_keys SET object_id = ?, object_version = ? WHERE scope = ? AND key = ?`,
		row.object, row.version, row.scope, row.key)
}

// consumerScope is the scope of a consumer's claims. No user's id is like it.
func consumerScope(name string) string { return "consumer:" + name }

// noExpiry is when the claim of a consumer expires: it goes once the consumer is
// past its event, see PurgeExpired.
var noExpiry = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// claimDelivery claims the event, then checks the consumer's lease by its epoch, the
// fencing token. In this order the lease needs no lock: an owner that takes over after
// the check handles the event later, and waits for the claim.
func (t *tx) claimDelivery(ctx context.Context, d claim.Delivery) error {
	scope := consumerScope(d.Lease.Name)
	claimed := func(n int64) error {
		if n == 0 {
			return claim.ErrAlreadyHandled
		}
		return nil
	}
	err := t.queueCounted(ctx, claimed, `INSERT INTO idempotency_keys (scope, key, fingerprint, object_id, object_version, created_at, expires_at, position)
		VALUES (?, ?, ?, ?, 0, ?, ?, ?) ON CONFLICT (scope, key) DO NOTHING`,
		scope, string(d.Event), []byte{0}, string(d.Event), t.db.clock.Now(), noExpiry, int64(d.Position))
	if err == nil {
		err = t.checkLease(ctx, d.Lease) // a statement of its own, behind the claim: it sees what was committed while the claim waited
	}
	if isCode(err, lockNotAvailable) {
		err = inFlight.Because(err) // only the claim waits for a lock
	}
	t.claimed = &claimRow{scope: scope, key: string(d.Event), complete: true}
	return err
}

// checkLease returns lease.ErrLost if the lease has another owner or epoch. A lease that has
// expired and was not acquired since still holds: its next owner raises the epoch.
func (t *tx) checkLease(ctx context.Context, l lease.Lease) error {
	var one int
	held, err := t.queryRow(ctx, `SELECT 1 FROM readers WHERE name = ? AND holder = ? AND epoch = ?`,
		[]any{l.Name, l.Owner, l.Epoch}, &one)
	if err == nil && !held {
		err = lease.ErrLost
	}
	return err
}

// purgeBatch bounds how many rows one transaction of a purge removes.
const purgeBatch = 5000

// deadLetterRetention is how long dead letters are kept after they were replayed.
const deadLetterRetention = 30 * 24 * time.Hour

// endedServiceRetention is how long a service is kept after its deregistration: until then it can come back as the same one.
const endedServiceRetention = 90 * 24 * time.Hour

// purges are what PurgeExpired removes. A consumer's claim is kept until its
// offset has passed the event, and while the event is a pending dead letter.
var purges = []struct {
	table, rows string
	before      time.Duration // of the moment that the condition compares with, if it does
	timed       bool
}{
	{"idempotency_keys", `SELECT x.id FROM idempotency_keys AS x WHERE x.expires_at <= ? ORDER BY x.expires_at`, 0, true},
	{"idempotency_keys", `SELECT x.id FROM readers AS r JOIN idempotency_keys AS x ON x.scope = 'consumer:' || r.name AND x.position <= r.position
		WHERE NOT EXISTS (SELECT 1 FROM dead_letters AS d WHERE d.event_id = x.key AND d.consumer = r.name AND d.replayed_at IS NULL)`, 0, false},
	{"dead_letters", `SELECT x.id FROM dead_letters AS x WHERE x.replayed_at <= ? ORDER BY x.replayed_at`, deadLetterRetention, true},
	{"services", `SELECT x.id FROM services AS x WHERE x.deregistered AND x.updated_at <= ? ORDER BY x.updated_at`, endedServiceRetention, true},
	{"payment_callbacks", `SELECT x.id FROM payment_callbacks AS x WHERE x.received_at <= ? ORDER BY x.received_at`, callbackRetention, true},
}

// PurgeExpired removes idempotency keys that have expired, the claims of events
// that consumers are past, dead letters that were replayed long ago, and services that ended long ago, in
// transactions of a few thousand rows, and returns how many. Sessions and
// counters of tries have Sweep.
func (db *DB) PurgeExpired(ctx context.Context) (removed int, err error) {
	for _, p := range purges {
		for n := purgeBatch; n == purgeBatch && ctx.Err() == nil; removed += n {
			args := []any{purgeBatch}
			if p.timed {
				args = []any{db.clock.Now().Add(-p.before), purgeBatch}
			}
			if n, err = db.purge(ctx, p.table, p.rows, args); err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

func (db *DB) purge(ctx context.Context, table, rows string, args []any) (int, error) {
	var n int64
	err := db.inTx(ctx, claim.None, func(t *tx) (err error) {
		t.dirty = true
		n, err = t.exec(ctx, `DELETE FROM `+table+` WHERE id IN (`+rows+` LIMIT ?`+t.lockClause("FOR UPDATE OF x SKIP LOCKED")+`)`, args...)
		return err
	})
	return int(n), err
}
