package store

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"

	"backplane/internal/auth"
)

// keyLife is how long a call is remembered under its idempotency key.
const keyLife = 24 * time.Hour

// claim is the call that a transaction makes, and the object it is about.
type claim struct {
	scope, key string
	object     string
	version    int
}

// replay says that the call was made before, and which object it was about. It
// is an error on its way through inTx and never leaves the package.
type replay struct{ object string }

func (r *replay) Error() string { return "this call was made before and was about " + r.object }

// withoutCall returns a context whose transactions claim nothing.
func withoutCall(ctx context.Context) context.Context { return auth.WithCall(ctx, auth.Call{}) }

// claimCall claims the idempotency key of ctx, if there is one, as the first
// statement. A twin waits here for the first call and then gets its object.
func (t *tx) claimCall(ctx context.Context) error {
	call, ok := auth.CallFrom(ctx)
	if !ok || call.Key == "" {
		return nil
	}
	c := &claim{scope: string(auth.From(ctx).UserID), key: call.Key}
	now := micro(t.db.cfg.Now())
	n, err := t.exec(ctx, `INSERT INTO idempotency_keys (scope, key, fingerprint, object_id, object_version, created_at, expires_at)
		VALUES (?, ?, ?, '', 0, ?, ?)
		ON CONFLICT (scope, key) DO UPDATE SET fingerprint = excluded.fingerprint, object_id = '', object_version = 0,
			created_at = excluded.created_at, expires_at = excluded.expires_at
		WHERE idempotency_keys.expires_at <= excluded.created_at`,
		c.scope, c.key, call.Fingerprint[:], now, now.Add(keyLife))
	switch {
	case isCode(err, lockNotAvailable):
		return inFlight.Because(err)
	case err != nil:
		return err
	case n == 1:
		t.claim = c
		return nil
	}
	return t.twin(ctx, c, call.Fingerprint)
}

// twin answers for a key that was used before.
func (t *tx) twin(ctx context.Context, c *claim, fingerprint [32]byte) error {
	var first []byte
	var object string
	found, err := t.one(ctx, `SELECT fingerprint, object_id FROM idempotency_keys WHERE scope = ? AND key = ?`,
		[]any{c.scope, c.key}, &first, &object)
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

// about says which object the transaction makes or changes, for its twins.
func (t *tx) about(id string, version int) {
	if t.claim != nil {
		t.claim.object, t.claim.version = id, version
	}
}

// fulfil stores the object of the claim.
func (t *tx) fulfil(ctx context.Context) error {
	c := t.claim
	if c == nil {
		return nil
	}
	if c.object == "" {
		return errors.New("a transaction that claims a call must say what it is about")
	}
	_, err := t.exec(ctx, `UPDATE idempotency_keys SET object_id = ?, object_version = ? WHERE scope = ? AND key = ?`,
		c.object, c.version, c.scope, c.key)
	return err
}

// purgeBatch bounds how many rows one call of PurgeExpired removes.
const purgeBatch = 5000

// PurgeExpired removes idempotency keys that have expired, at most a few
// thousand a call, and returns how many: call it again while there are many.
// Sessions and counters of tries have Sweep.
func (db *DB) PurgeExpired(ctx context.Context) (int, error) {
	var n int64
	err := db.inTx(withoutCall(ctx), func(t *tx) (err error) {
		t.dirty = true
		n, err = t.exec(ctx, `DELETE FROM idempotency_keys WHERE id IN
			(SELECT id FROM idempotency_keys WHERE expires_at <= ? ORDER BY expires_at LIMIT ?`+t.lock("FOR UPDATE SKIP LOCKED")+`)`,
			micro(db.cfg.Now()), purgeBatch)
		return err
	})
	return int(n), err
}
