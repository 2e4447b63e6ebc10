package store

import (
	"context"
	"fmt"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/ent"
	entpayment "github.com/backplane-dev/backplane/ent/payment"
	entattempt "github.com/backplane-dev/backplane/ent/paymentattempt"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Payments implements payment.Store.
type Payments struct{ db *DB }

var _ payment.Store = Payments{}

// Payments returns the store of payments.
func (db *DB) Payments() Payments { return Payments{db} }

// Create implements payment.Store. The order's row keeps its cancellation waiting until the commit.
func (s Payments) Create(ctx context.Context, cl claim.Claim, id uid.Order, create func() *payment.Payment) (created bool, err error) {
	err = s.db.inTx(ctx, cl, func(t *tx) error {
		created = false
		var status order.Status
		found, err := t.queryRow(ctx, `SELECT status FROM orders WHERE id = ?`+t.lockClause("FOR SHARE"), []any{string(id)}, &status)
		if err != nil || !found || status != order.Pending {
			return err
		}
		if found, err = t.queryRow(ctx, `SELECT 1 FROM payments WHERE order_id = ?`, []any{string(id)}, new(int)); err != nil || found {
			return err
		}
		created = true
		return t.insertPayment(ctx, create())
	})
	if err != nil {
		return false, fmt.Errorf("create the payment of order %s: %w", id, err)
	}
	return created, nil
}

func (t *tx) insertPayment(ctx context.Context, p *payment.Payment) error {
	stampPayment(p)
	claimed, fresh := p.ClaimState()
	columns := []string{
		entpayment.FieldID, entpayment.FieldOrderID, entpayment.FieldOrderNumber, entpayment.FieldUserID, entpayment.FieldAmountMinor, entpayment.FieldCurrency,
		entpayment.FieldStatus, entpayment.FieldKnown, entpayment.FieldReference, entpayment.FieldFailure, entpayment.FieldAttempts, entpayment.FieldFailures,
		entpayment.FieldSentAt, entpayment.FieldNextAt, entpayment.FieldDeadlineAt, entpayment.FieldClaim, entpayment.FieldClaimed, entpayment.FieldFresh,
		entpayment.FieldVersion, entpayment.FieldCreatedAt, entpayment.FieldUpdatedAt,
	}
	row := []any{
		string(p.ID), string(p.OrderID), p.OrderNumber, string(p.UserID), p.Amount.Minor, p.Amount.Currency,
		string(p.Status), string(p.Known), p.Reference, p.Failure, p.AttemptCount, p.Failures,
		p.SentAt, p.NextAt, p.DeadlineAt, p.Claim, claimed, fresh, p.Version, p.CreatedAt, p.UpdatedAt,
	}
	if err := t.insertRows(ctx, entpayment.Table, columns, [][]any{row}); err != nil {
		return err
	}
	return t.recordPaymentChange(ctx, p)
}

// recordPaymentChange stores the attempts and events of a payment whose row is written.
func (t *tx) recordPaymentChange(ctx context.Context, p *payment.Payment) error {
	t.recordEvents(p.TakeEvents())
	t.touchUncachedRow(payment.Entity.Name, string(p.ID), p.Version)
	attempts := p.TakeAttempts()
	if len(attempts) == 0 {
		return nil
	}
	columns := []string{
		entattempt.FieldPaymentID, entattempt.FieldNumber, entattempt.FieldStep, entattempt.FieldInstance, entattempt.FieldOutcome,
		entattempt.FieldMessage, entattempt.FieldAt, entattempt.FieldDurationMicros,
	}
	rows := mapSlice(attempts, func(a payment.Attempt) []any {
		return []any{string(p.ID), a.Number, string(a.Step), a.Instance, string(a.Outcome), a.Message, toMicros(a.At), a.Duration.Microseconds()}
	})
	if err := t.insertRows(ctx, entattempt.Table, columns, rows); err != nil {
		return err
	}
	if p.AttemptCount <= payment.KeptAttempts {
		return nil
	}
	_, err := t.exec(ctx, `DELETE FROM payment_attempts WHERE payment_id = ? AND number <= ?`, string(p.ID), p.AttemptCount-payment.KeptAttempts)
	return err
}

// Update implements payment.Store.
func (s Payments) Update(ctx context.Context, id uid.Payment, fn func(*payment.Payment) error) (*payment.Payment, error) {
	out, err := s.update(ctx, claim.None, entpayment.ID(id), fn)
	if err == nil && out == nil {
		err = payment.NotFound()
	}
	if err != nil {
		return nil, fmt.Errorf("update payment %s: %w", id, err)
	}
	return out, nil
}

// UpdateByOrder implements payment.Store.
func (s Payments) UpdateByOrder(ctx context.Context, cl claim.Claim, id uid.Order, fn func(*payment.Payment) error) (*payment.Payment, error) {
	out, err := s.update(ctx, cl, entpayment.OrderID(id), fn)
	if err != nil {
		return nil, fmt.Errorf("update the payment of order %s: %w", id, err)
	}
	return out, nil
}

func (s Payments) update(ctx context.Context, cl claim.Claim, where func(*entsql.Selector), fn func(*payment.Payment) error) (out *payment.Payment, err error) {
	err = s.db.inTx(ctx, cl, func(t *tx) error {
		if out, err = t.lockPayment(ctx, where); err != nil || out == nil {
			return err
		}
		if err := fn(out); err != nil {
			return err
		}
		return t.savePayment(ctx, out)
	})
	return out, err
}

// lockPayment loads the payment that matches and locks its row until the commit; nil if there is none.
func (t *tx) lockPayment(ctx context.Context, where func(*entsql.Selector)) (*payment.Payment, error) {
	row, err := t.ent.Payment.Query().Where(where, t.forUpdate).Only(ctx)
	if ent.IsNotFound(err) {
		return nil, nil //nolint:nilnil // the comment says what it means
	}
	if err != nil {
		return nil, err
	}
	return toPayment(row), nil
}

func (t *tx) savePayment(ctx context.Context, p *payment.Payment) error {
	stampPayment(p)
	claimed, fresh := p.ClaimState()
	_, err := t.exec(ctx, `UPDATE payments SET status = ?, known = ?, reference = ?, failure = ?, attempts = ?, failures = ?, sent_at = ?, next_at = ?,
			deadline_at = ?, claim = ?, claimed = ?, fresh = ?, version = ?, updated_at = ? WHERE id = ?`,
		string(p.Status), string(p.Known), p.Reference, p.Failure, p.AttemptCount, p.Failures, p.SentAt, p.NextAt,
		p.DeadlineAt, p.Claim, claimed, fresh, p.Version, p.UpdatedAt, string(p.ID))
	if err != nil {
		return err
	}
	t.dirty = true
	return t.recordPaymentChange(ctx, p)
}

// settlePayment settles the payment of an order that the transaction cancels, or refuses that. The order's row is locked.
func (t *tx) settlePayment(ctx context.Context, o *order.Order) error {
	p, err := t.lockPayment(ctx, entpayment.OrderID(o.ID))
	if err != nil || p == nil {
		return err
	}
	was := p.State
	if !p.CancelOrder(o.UpdatedAt) {
		return order.PaymentUnderWay()
	}
	if p.State == was {
		return nil
	}
	return t.savePayment(ctx, p)
}

// UpdateDue implements payment.Store.
func (s Payments) UpdateDue(ctx context.Context, due payment.Due, at time.Time, limit int, fn func(*payment.Payment)) (out []*payment.Payment, err error) {
	column := entpayment.FieldNextAt
	if due == payment.DueDeadline {
		column = entpayment.FieldDeadlineAt
	}
	if some, err := s.anyDue(ctx, column, at); err != nil || !some {
		return nil, err
	}
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		out = nil
		rows, err := t.ent.Payment.Query().Where(func(q *entsql.Selector) { q.Where(entsql.LTE(q.C(column), toMicros(at))) }, t.skipLocked).
			Order(ent.Asc(column)).Limit(limit).All(ctx)
		if err != nil {
			return err
		}
		for _, row := range rows {
			p := toPayment(row)
			fn(p)
			if err := t.savePayment(ctx, p); err != nil {
				return err
			}
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("update payments that are due: %w", err)
	}
	return out, nil
}

// anyDue keeps nodes from writing transactions while nothing is due.
func (s Payments) anyDue(ctx context.Context, column string, at time.Time) (bool, error) {
	found, err := s.db.readConn().queryRow(ctx, `SELECT 1 FROM payments WHERE `+column+` <= ? LIMIT 1`, []any{toMicros(at)}, new(int))
	if err != nil {
		return false, fmt.Errorf("look for payments that are due: %w", s.db.translateError(ctx, err))
	}
	return found, nil
}

// skipLocked locks the rows that no other transaction has locked, and leaves out the others.
func (c conn) skipLocked(s *entsql.Selector) {
	if s.Dialect() == dialect.Postgres {
		s.For(entsql.LockUpdate, entsql.WithLockAction(entsql.SkipLocked))
	}
}

func toPayment(r *ent.Payment) *payment.Payment {
	return (&payment.Payment{
		ID: r.ID, OrderID: r.OrderID, OrderNumber: r.OrderNumber, UserID: r.UserID, Amount: money.Money{Minor: r.AmountMinor, Currency: r.Currency},
		State: payment.State{Status: r.Status, Known: r.Known}, Reference: r.Reference, Failure: r.Failure, Version: r.Version,
		AttemptCount: r.Attempts, Failures: r.Failures, SentAt: toMicrosOrNil(r.SentAt), NextAt: toMicrosOrNil(r.NextAt), DeadlineAt: toMicrosOrNil(r.DeadlineAt),
		Claim: r.Claim, CreatedAt: toMicros(r.CreatedAt), UpdatedAt: toMicros(r.UpdatedAt),
	}).Loaded(r.Claimed, r.Fresh)
}

// stampPayment gives a payment the times that will be read back.
func stampPayment(p *payment.Payment) {
	p.CreatedAt, p.UpdatedAt = toMicros(p.CreatedAt), toMicros(p.UpdatedAt)
	p.SentAt, p.NextAt, p.DeadlineAt = toMicrosOrNil(p.SentAt), toMicrosOrNil(p.NextAt), toMicrosOrNil(p.DeadlineAt)
}
