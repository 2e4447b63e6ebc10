package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/ent"
	entpayment "github.com/backplane-dev/backplane/ent/payment"
	entattempt "github.com/backplane-dev/backplane/ent/paymentattempt"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// ByIDs implements payment.Store.
func (s Payments) ByIDs(ctx context.Context, ids []uid.Payment) (map[uid.Payment]*payment.Payment, error) {
	found := make(map[uid.Payment]*payment.Payment, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.Payment.Query().Where(entpayment.IDIn(some...)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read payments: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.ID] = toPayment(row)
		}
	}
	return found, nil
}

// ByOrders implements payment.Store.
func (s Payments) ByOrders(ctx context.Context, ids []uid.Order) (map[uid.Order]*payment.Payment, error) {
	found := make(map[uid.Order]*payment.Payment, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.Payment.Query().Where(entpayment.OrderIDIn(some...)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read payments of orders: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.OrderID] = toPayment(row)
		}
	}
	return found, nil
}

// Attempts implements payment.Store.
func (s Payments) Attempts(ctx context.Context, ids []uid.Payment) (map[uid.Payment][]payment.Attempt, error) {
	found := make(map[uid.Payment][]payment.Attempt, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.PaymentAttempt.Query().Where(entattempt.PaymentIDIn(some...)).
			Order(ent.Asc(entattempt.FieldPaymentID, entattempt.FieldNumber)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read attempts of payments: %w", s.db.translateError(ctx, err))
		}
		for _, r := range rows {
			found[r.PaymentID] = append(found[r.PaymentID], payment.Attempt{
				Number: r.Number, Step: r.Step, Instance: r.Instance, Outcome: r.Outcome, Message: r.Message,
				At: toMicros(r.At), Duration: time.Duration(r.DurationMicros) * time.Microsecond,
			})
		}
	}
	return found, nil
}

var paymentOrders = map[payment.OrderBy]keyset[*payment.Payment]{
	payment.ByCreatedDesc: paymentsByCreated(payment.ByCreatedDesc, true),
	payment.ByCreatedAsc:  paymentsByCreated(payment.ByCreatedAsc, false),
}

func paymentsByCreated(name payment.OrderBy, desc bool) keyset[*payment.Payment] {
	key := func(p *payment.Payment) string { return timeKey(p.CreatedAt) }
	id := func(p *payment.Payment) string { return string(p.ID) }
	return keyset[*payment.Payment]{string(name), entpayment.FieldCreatedAt, desc, key, id, parseTime}
}

// List implements payment.Store.
func (s Payments) List(ctx context.Context, f payment.Filter, by payment.OrderBy, args page.Args) (page.Page[*payment.Payment], error) {
	return listPage(ctx, s.db, s.queryMatching, f, paymentOrders[by], args, toPayment)
}

// Count implements payment.Store.
func (s Payments) Count(ctx context.Context, f payment.Filter) (int, error) {
	return countRows(ctx, s.db, s.queryMatching, f)
}

func (s Payments) queryMatching(f payment.Filter) (*ent.PaymentQuery, error) {
	q := s.db.client.Payment.Query()
	if f.UserID != nil {
		q.Where(equalsText(entpayment.FieldUserID, string(*f.UserID)))
	}
	if f.OrderID != nil {
		q.Where(equalsText(entpayment.FieldOrderID, string(*f.OrderID)))
	}
	if f.Status != nil {
		q.Where(func(q *entsql.Selector) { q.Where(entsql.In(q.C(entpayment.FieldStatus), toAnys(f.Status)...)) })
	}
	if f.CreatedAfter != nil {
		q.Where(entpayment.CreatedAtGTE(toMicros(*f.CreatedAfter)))
	}
	if f.CreatedBefore != nil {
		q.Where(entpayment.CreatedAtLT(toMicros(*f.CreatedBefore)))
	}
	return q, nil
}

// Backlog implements payment.Store. What is open has a time when a worker looks at it, so one partial index has it all.
func (s Payments) Backlog(ctx context.Context, at time.Time) (b payment.Backlog, err error) {
	c := s.db.readConn()
	err = c.eachRow(ctx, `SELECT status, COUNT(*), MIN(next_at), MIN(created_at) FROM payments WHERE next_at IS NOT NULL GROUP BY status`, nil,
		func(scan func(...any) error) error {
			var status payment.Status
			var n int
			var due, created instant
			if err := scan(&status, &n, &due, &created); err != nil {
				return err
			}
			b.Waiting = max(b.Waiting, at.Sub(due.Time))
			switch status {
			case payment.Pending:
				b.Pending, b.Oldest = n, max(0, at.Sub(created.Time))
			case payment.Refunding:
				b.Refunding = n
			case payment.Failed:
				b.Unsettled = n
			case payment.Succeeded, payment.Refunded: // nothing is to be done
			}
			return nil
		})
	if err == nil {
		_, err = c.queryRow(ctx, `SELECT COUNT(*) FROM payment_callbacks WHERE next_at IS NOT NULL`, nil, &b.Callbacks)
	}
	if err != nil {
		return b, fmt.Errorf("read the backlog of payments: %w", s.db.translateError(ctx, err))
	}
	return b, nil
}
