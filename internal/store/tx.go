package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/ent"
	"github.com/backplane-dev/backplane/internal/backoff"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/store/pgserver"
)

// maxTries bounds how often a transaction runs that the database refuses because of
// concurrent ones. Conflicts are rare, as locks are taken in one order.
const maxTries = 8

// conflictRetries is the pause before a transaction or migration runs again.
var conflictRetries = backoff.Policy{First: 2 * time.Millisecond, Max: 128 * time.Millisecond}

// tx is a write transaction: ent and plain SQL on it, and the events, touched rows and
// claim that are stored with the commit.
type tx struct {
	conn
	inner    transaction
	ent      *ent.Client
	db       *DB
	claimed  *claimRow // nil without a claim
	events   []event.Event
	security []security.Event // those of events are added at the end
	touched  []Touched
	assigned bool // it assigned a legacy id that another transaction may take meanwhile
	dirty    bool // it changed rows without an event or a touched entry
	sent     bool // COMMIT was sent and not refused: it succeeded, or its outcome is unknown
}

// Touched names a row that a transaction changed. The list is stored with the
// transaction's first event, for caches on every node.
type Touched = event.Touched

// Hooks are called after a transaction, before the write returns, also when it is unknown
// whether COMMIT succeeded. The transaction's connection is free again by then. They must be
// quick and must not write.
type Hooks struct {
	Committed func([]Touched)        // with the rows that the transaction changed, if there are any
	Appended  func()                 // if the transaction has stored events
	Secured   func([]security.Event) // with the security events that the transaction has stored, if any
}

// WithHooks returns the database with the hooks in place of those that it has. Both share their
// connections: closing one closes the other.
func (db *DB) WithHooks(h Hooks) *DB {
	with := *db
	with.hooks = h
	return &with
}

// OnCommitted returns the database with fn called after each transaction that changed rows, as of
// Hooks.Committed and after it. Both share their connections, as of WithHooks.
func (db *DB) OnCommitted(fn func([]Touched)) *DB {
	h, first := db.hooks, db.hooks.Committed
	h.Committed = func(rows []Touched) {
		if first != nil {
			first(rows)
		}
		fn(rows)
	}
	return db.WithHooks(h)
}

// changeInTx runs fn in a transaction and returns its result. For a duplicate call it does
// not run fn, but reads the object of the first call.
func changeInTx[ID ~string, T any](ctx context.Context, db *DB, cl claim.Claim, read func(context.Context, ID) (T, error), fn func(*tx) (T, error)) (T, error) {
	var out T
	err := db.inTx(ctx, cl, func(tx *tx) (err error) {
		out, err = fn(tx)
		return err
	})
	if again, ok := errors.AsType[*replay](err); ok {
		return read(ctx, ID(again.object))
	}
	if err != nil {
		var none T
		return none, err
	}
	return out, nil
}

// inTx runs fn in a transaction: it inserts the claim, runs fn, stores what fn recorded
// and commits. It runs fn again if the database refuses the transaction because of
// concurrent ones, so fn must not keep state between runs. Without a claim, and if fn
// changed nothing, nothing is committed. For a duplicate call it returns a *replay, and for
// an event that is handled claim.ErrAlreadyHandled, and fn does not run.
func (db *DB) inTx(ctx context.Context, cl claim.Claim, fn func(*tx) error) error {
	for try := 1; ; try++ {
		t, again, err := db.attemptTx(ctx, cl, fn)
		if t != nil && t.sent {
			db.notifyCommitted(t)
		}
		if !again || try == maxTries || ctx.Err() != nil {
			db.noteStored(t, err)
			return db.translateError(ctx, err)
		}
		if db.isPostgres() && pgserver.IsStale(err) {
			db.server.ReplaceIdle()
		}
		backoff.Sleep(ctx, conflictRetries.Delay(try))
	}
}

// noteStored notes for the Monitor whether a transaction could store its change. On PostgreSQL one that could may have
// needed no room, and says nothing of others.
func (db *DB) noteStored(t *tx, err error) {
	switch {
	case err == nil && t.sent && !db.isPostgres():
		db.storing.succeeded()
	case isOutOfSpace(err):
		db.storing.failed(cannotStore.Because(err))
	}
}

// notifyCommitted calls the hooks.
func (db *DB) notifyCommitted(t *tx) {
	if fn := db.hooks.Committed; fn != nil && len(t.touched) > 0 {
		fn(t.touched)
	}
	if fn := db.hooks.Appended; fn != nil && len(t.events) > 0 {
		fn()
	}
	if fn := db.hooks.Secured; fn != nil && len(t.security) > 0 {
		fn(t.security)
	}
}

// attemptTx runs the transaction once; again says that it may run once more.
func (db *DB) attemptTx(ctx context.Context, cl claim.Claim, fn func(*tx) error) (t *tx, again bool, err error) {
	if err := db.file.check(); err != nil {
		return nil, false, err
	}
	permit, err := db.writers.acquire(ctx)
	if err != nil {
		return nil, false, err
	}
	defer permit.release()
	pooled, err := db.write.Conn(ctx)
	if err != nil {
		return nil, isRepeatable(err), err
	}
	defer pooled.Close()
	// A COMMIT that was sent must not be interrupted when the client disconnects: its outcome
	// would be unknown. Statements still end with ctx.
	lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.cfg.TxTime)
	defer cancel()
	inner, err := db.begin(ctx, lasting, cancel, pooled)
	if err != nil {
		return nil, isRepeatable(err), err
	}
	defer func() {
		if again || err != nil {
			inner.rollback()
		}
	}()
	t = db.newTx(inner)
	if err := t.runChange(ctx, cl, fn); err != nil {
		return t, isRepeatable(err) || t.assigned && isLegacyTaken(err), err
	}
	if t.isEmpty() {
		inner.rollback()
		return t, false, nil
	}
	again, err = db.commitTx(lasting, inner, t)
	return t, again, err
}

// begin begins a transaction that lasts as long as the context lasting, which cancel ends; BEGIN ends with ctx, too.
func (db *DB) begin(ctx, lasting context.Context, cancel context.CancelFunc, pooled *sql.Conn) (transaction, error) {
	db.observeStatement("BEGIN")
	if db.isPostgres() {
		return newPipeline(pooled, db.cfg.OnStatement)
	}
	begun := context.AfterFunc(ctx, cancel)
	defer begun()
	raw, err := pooled.BeginTx(lasting, nil)
	return plainTransaction{raw}, err
}

func (db *DB) newTx(inner transaction) *tx {
	c := conn{ExecQuerier: statementObserver{inner, db.cfg.OnStatement}, dialect: db.dialect}
	c.pipeline, _ = inner.(*pipeline)
	return &tx{conn: c, inner: inner, ent: ent.NewClient(ent.Driver(c.entDriver())), db: db}
}

func (t *tx) runChange(ctx context.Context, cl claim.Claim, fn func(*tx) error) error {
	if err := t.insertClaim(ctx, cl); err != nil {
		return err
	}
	if err := fn(t); err != nil {
		return err
	}
	if len(t.touched) > 0 && len(t.events) == 0 {
		return fmt.Errorf("a transaction touched %v and records no event: other nodes would not invalidate it", t.touched)
	}
	if err := t.insertEvents(ctx); err != nil {
		return err
	}
	if err := t.insertSecurityEvents(ctx); err != nil {
		return err
	}
	if err := t.completeClaim(ctx); err != nil {
		return err
	}
	if err := t.inner.settle(ctx); err != nil {
		return err
	}
	return ctx.Err()
}

// commitTx ends the transaction, behind the statements that it has queued. When the outcome stays unknown, a claimed call
// may run again: it finds its claim if the first COMMIT succeeded.
func (db *DB) commitTx(ctx context.Context, inner transaction, t *tx) (again bool, err error) {
	if err := db.file.check(); err != nil {
		return false, err
	}
	db.observeStatement("COMMIT")
	err = inner.commit(ctx)
	if err != nil && (isRefused(err) || inner.isOpen()) {
		return isRepeatable(err), err
	}
	t.sent = true
	if err != nil {
		return t.claimed != nil, outcomeUnknown.Because(fmt.Errorf("commit: %w", err))
	}
	return false, nil
}

func (t *tx) isEmpty() bool {
	return t.claimed == nil && len(t.events) == 0 && len(t.security) == 0 && len(t.touched) == 0 && !t.dirty
}

// touchRow records that the transaction changed a row.
func (t *tx) touchRow(entity string, id string, version int) {
	t.touched = append(t.touched, Touched{Entity: entity, ID: id, Version: version})
}

// touchUncachedRow is touchRow for sessions and keys, which no node caches: not every change
// of them records an event, since each sign-in would add one to the log. It touches the
// row only if the transaction has events.
func (t *tx) touchUncachedRow(entity string, id string, version int) {
	if len(t.events) == 0 {
		t.dirty = true
		return
	}
	t.touchRow(entity, id, version)
}

// recordEvents appends events to be stored with the commit.
func (t *tx) recordEvents(events []event.Event) { t.events = append(t.events, events...) }
