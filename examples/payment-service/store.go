package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// schema is the service's own database. The primary keys are what makes a repeated call charge once:
// instances need no other agreement.
const schema = `
CREATE TABLE IF NOT EXISTS payments (
	id TEXT PRIMARY KEY, order_number TEXT NOT NULL, minor_units INTEGER NOT NULL, currency TEXT NOT NULL, callback_url TEXT NOT NULL,
	status TEXT NOT NULL, reference TEXT NOT NULL UNIQUE, failure TEXT NOT NULL, message TEXT NOT NULL, due_at INTEGER NOT NULL, instance TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refunds (
	id TEXT PRIMARY KEY, payment_id TEXT NOT NULL REFERENCES payments (id), minor_units INTEGER NOT NULL, currency TEXT NOT NULL, callback_url TEXT NOT NULL,
	status TEXT NOT NULL, reference TEXT NOT NULL UNIQUE, failure TEXT NOT NULL, message TEXT NOT NULL, due_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS callbacks (
	id TEXT PRIMARY KEY, url TEXT NOT NULL, body BLOB NOT NULL, next_at INTEGER NOT NULL, tries INTEGER NOT NULL
);`

// The states of a payment or refund.
const (
	pending   = "PENDING"
	succeeded = "SUCCEEDED"
	failed    = "FAILED"
)

// entry is a payment, or a refund of the payment PaymentID.
type entry struct {
	ID          string
	PaymentID   string
	OrderNumber string
	Amount      amount
	CallbackURL string
	Status      string
	Reference   string
	Failure     string
	Message     string
	DueAt       time.Time // when a pending one gets its outcome
}

type amount struct {
	MinorUnits int64  `json:"minorUnits"`
	Currency   string `json:"currency"`
}

var (
	errNotFound = errors.New("not found")
	errTooMuch  = errors.New("the refunds would exceed the payment")
)

type store struct{ db *sql.DB }

// openStore opens the file, and makes the tables that are missing. Writers of several processes wait for
// one another, at most the busy timeout; a transaction takes the write lock at its beginning.
func openStore(ctx context.Context, path string) (*store, error) {
	pragmas := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "foreign_keys(1)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+path+"?"+pragmas.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return &store{db}, nil
}

func (s *store) close()                         { _ = s.db.Close() } // all that was written is in the file already
func (s *store) ping(ctx context.Context) error { return s.db.PingContext(ctx) }

// charge stores the payment unless its id is known, and returns what is stored.
func (s *store) charge(ctx context.Context, e entry, instance string) (entry, error) {
	_, err := s.db.ExecContext(ctx, `INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		e.ID, e.OrderNumber, e.Amount.MinorUnits, e.Amount.Currency, e.CallbackURL, e.Status, "ch_"+rand.Text(), e.Failure, e.Message, e.DueAt.UnixMilli(), instance)
	if err != nil {
		return entry{}, err
	}
	return s.payment(ctx, e.ID)
}

// refund stores the refund unless its id is known, and returns what is stored. All refunds of a payment
// together are at most its amount.
func (s *store) refund(ctx context.Context, e entry) (entry, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return entry{}, err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after a commit
	var left int64
	err = tx.QueryRowContext(ctx, `SELECT minor_units - (SELECT coalesce(sum(r.minor_units), 0) FROM refunds AS r WHERE r.payment_id = p.id AND r.id <> ?)
		FROM payments AS p WHERE p.id = ? AND p.status = ? AND p.currency = ?`, e.ID, e.PaymentID, succeeded, e.Amount.Currency).Scan(&left)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return entry{}, errNotFound
	case err != nil:
		return entry{}, err
	case left < e.Amount.MinorUnits:
		return entry{}, errTooMuch
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO refunds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		e.ID, e.PaymentID, e.Amount.MinorUnits, e.Amount.Currency, e.CallbackURL, e.Status, "re_"+rand.Text(), e.Failure, e.Message, e.DueAt.UnixMilli()); err != nil {
		return entry{}, err
	}
	if err := tx.Commit(); err != nil {
		return entry{}, err
	}
	return s.refundOf(ctx, e.PaymentID, e.ID)
}

func (s *store) payment(ctx context.Context, id string) (entry, error) {
	return scan(s.db.QueryRowContext(ctx, `SELECT id, '', order_number, minor_units, currency, callback_url, status, reference, failure, message, due_at FROM payments WHERE id = ?`, id))
}

func (s *store) refundOf(ctx context.Context, payment, id string) (entry, error) {
	return scan(s.db.QueryRowContext(ctx, `SELECT id, payment_id, '', minor_units, currency, callback_url, status, reference, failure, message, due_at FROM refunds WHERE id = ? AND payment_id = ?`, id, payment))
}

func scan(row interface{ Scan(dest ...any) error }) (e entry, err error) {
	var due int64
	err = row.Scan(&e.ID, &e.PaymentID, &e.OrderNumber, &e.Amount.MinorUnits, &e.Amount.Currency, &e.CallbackURL, &e.Status, &e.Reference, &e.Failure, &e.Message, &due)
	if errors.Is(err, sql.ErrNoRows) {
		return entry{}, errNotFound
	}
	e.DueAt = time.UnixMilli(due)
	return e, err
}

// finishDue gives pending payments and refunds their outcome once it is due, at most a hundred at a time,
// and stores the callback that says so in the same transaction: a process that dies loses neither.
func (s *store) finishDue(ctx context.Context, now time.Time) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after a commit
	for _, statement := range []string{finishPayments, finishRefunds} {
		done, err := finish(ctx, tx, statement, now)
		if err != nil {
			return err
		}
		for _, e := range done {
			if e.CallbackURL == "" {
				continue
			}
			body, err := callbackBody(e, now)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO callbacks VALUES (?, ?, ?, ?, 0)`, "msg_"+rand.Text(), e.CallbackURL, body, now.UnixMilli()); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

// The statements that finish what is due.
const (
	finishPayments = `UPDATE payments SET status = ? WHERE id IN (SELECT id FROM payments WHERE status = ? AND due_at <= ? LIMIT 100)
		RETURNING id, '', order_number, minor_units, currency, callback_url, status, reference, failure, message, due_at`
	finishRefunds = `UPDATE refunds SET status = ? WHERE id IN (SELECT id FROM refunds WHERE status = ? AND due_at <= ? LIMIT 100)
		RETURNING id, payment_id, '', minor_units, currency, callback_url, status, reference, failure, message, due_at`
)

func finish(ctx context.Context, tx *sql.Tx, statement string, now time.Time) (done []entry, err error) {
	rows, err := tx.QueryContext(ctx, statement, succeeded, pending, now.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, err
		}
		done = append(done, e)
	}
	return done, rows.Err()
}

// outgoing is a callback that is not delivered yet.
type outgoing struct {
	ID    string
	URL   string
	Body  []byte
	Tries int
}

// takeCallbacks claims callbacks that are due, for the time of the lease: other instances leave them alone,
// and take them over if this one dies.
func (s *store) takeCallbacks(ctx context.Context, now time.Time, lease time.Duration) (all []outgoing, err error) {
	rows, err := s.db.QueryContext(ctx, `UPDATE callbacks SET next_at = ?, tries = tries + 1 WHERE id IN (SELECT id FROM callbacks WHERE next_at <= ? ORDER BY next_at LIMIT 20)
		RETURNING id, url, body, tries`, now.Add(lease).UnixMilli(), now.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var o outgoing
		if err := rows.Scan(&o.ID, &o.URL, &o.Body, &o.Tries); err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	return all, rows.Err()
}

// retryCallback puts a callback off; dropCallback forgets one that was delivered, or never will be.
func (s *store) retryCallback(ctx context.Context, id string, at time.Time) error {
	_, err := s.db.ExecContext(ctx, `UPDATE callbacks SET next_at = ? WHERE id = ?`, at.UnixMilli(), id)
	return err
}

func (s *store) dropCallback(ctx context.Context, id string) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM callbacks WHERE id = ?`, id)
	return err
}
