package store

import (
	"context"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/ent"
	entpayment "github.com/backplane-dev/backplane/ent/payment"
	entcallback "github.com/backplane-dev/backplane/ent/paymentcallback"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/payment"
)

// callbackRetention is how long messages of payment providers are kept: repeats within it are known as such.
const callbackRetention = 30 * 24 * time.Hour

// callbackPatience is how long a message waits for its payment.
const callbackPatience = 7 * 24 * time.Hour

// AddCallback implements payment.Store.
func (s Payments) AddCallback(ctx context.Context, c payment.Callback, at time.Time) error {
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		_, err := t.exec(ctx, `INSERT INTO payment_callbacks (id, payment_id, refund_id, status, reference, failure, message, instance, sent_at, received_at, next_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			c.ID, string(c.Payment), string(c.Refund), string(c.Answer.Status), c.Answer.Reference, c.Answer.Failure, c.Answer.Message, c.Answer.Instance,
			toMicros(c.At), toMicros(at), toMicros(at))
		return err
	})
	if err != nil {
		return fmt.Errorf("store a message of the payment provider: %w", err)
	}
	return nil
}

// ApplyCallbacks implements payment.Store.
func (s Payments) ApplyCallbacks(ctx context.Context, at time.Time, limit int, fn func(*payment.Payment, payment.Callback)) (n int, err error) {
	ids, err := s.db.client.PaymentCallback.Query().Where(entcallback.NextAtLTE(toMicros(at))).Order(ent.Asc(entcallback.FieldNextAt)).Limit(limit).IDs(ctx)
	if err != nil {
		return 0, fmt.Errorf("read messages of the payment provider: %w", s.db.translateError(ctx, err))
	}
	for _, id := range ids {
		applied := false
		err := s.db.inTx(ctx, claim.None, func(t *tx) (err error) {
			applied, err = t.applyCallback(ctx, id, at, fn)
			return err
		})
		if err != nil {
			return n, fmt.Errorf("apply message %s of the payment provider: %w", id, err)
		}
		if applied {
			n++
		}
	}
	return n, nil
}

// applyCallback applies one message, unless another node does.
func (t *tx) applyCallback(ctx context.Context, id string, at time.Time, fn func(*payment.Payment, payment.Callback)) (applied bool, err error) {
	row, err := t.ent.PaymentCallback.Query().Where(entcallback.ID(id), entcallback.NextAtNotNil(), t.skipLocked).Only(ctx)
	if ent.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p, err := t.lockPayment(ctx, entpayment.ID(row.PaymentID))
	if err != nil {
		return false, err
	}
	t.dirty = true
	var next *time.Time
	if p == nil {
		if age := at.Sub(row.ReceivedAt); age < callbackPatience {
			later := toMicros(at.Add(min(max(age/2, time.Second), 10*time.Minute)))
			next = &later
		}
	} else {
		fn(p, payment.Callback{
			ID: row.ID, Payment: row.PaymentID, Refund: row.RefundID, At: row.SentAt,
			Answer: payment.Answer{Status: row.Status, Reference: row.Reference, Failure: row.Failure, Message: row.Message, Instance: row.Instance},
		})
		if err := t.savePayment(ctx, p); err != nil {
			return false, err
		}
	}
	_, err = t.exec(ctx, `UPDATE payment_callbacks SET next_at = ? WHERE id = ?`, next, id)
	return p != nil, err
}
