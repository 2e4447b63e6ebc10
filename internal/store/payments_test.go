package store_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// givenPayment places an order with a payment that was created at the time.
func givenPayment(t testing.TB, db *store.DB, sku string, at time.Time) (*order.Order, *payment.Payment) {
	t.Helper()
	givenProduct(t, db, sku, 5)
	o, err := placeOrder(t.Context(), claim.None, db, givenUser(t, db).ID, sku)
	if err != nil {
		t.Fatal(err)
	}
	created, err := db.Payments().Create(t.Context(), claim.None, o.ID, func() *payment.Payment { return payment.New(placedOf(o), at, time.Hour) })
	if err != nil || !created {
		t.Fatalf("Create = %t, %v", created, err)
	}
	return o, paymentOf(t, db, o.ID)
}

func placedOf(o *order.Order) payment.Placed {
	return payment.Placed{OrderID: o.ID, OrderNumber: o.Number, UserID: o.UserID, Total: o.Total}
}

func paymentOf(t testing.TB, db *store.DB, id uid.Order) *payment.Payment {
	t.Helper()
	found, err := db.Payments().ByOrders(t.Context(), []uid.Order{id})
	if err != nil || found[id] == nil {
		t.Fatalf("the payment of order %s is %v, %v", id, found[id], err)
	}
	return found[id]
}

func cancelOrder(t testing.TB, db *store.DB, id uid.Order) error {
	t.Helper()
	_, err := db.Orders().Update(t.Context(), claim.None, id, func(o *order.Order) error { return o.Cancel("", at) })
	return err
}

func TestPayments_are_one_for_each_order(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		o, p := givenPayment(t, db, "CUP", at)
		if p.State != (payment.State{Status: payment.Pending, Known: payment.NothingSent}) || p.Amount != o.Total || p.UserID != o.UserID || p.NextAt == nil || p.DeadlineAt == nil {
			t.Errorf("the new payment is %+v", p)
		}
		again := func() *payment.Payment { return payment.New(placedOf(o), at, time.Hour) }
		if created, err := db.Payments().Create(t.Context(), claim.None, o.ID, again); created || err != nil {
			t.Errorf("another Create = %t, %v", created, err)
		}
		other, err := placeOrder(t.Context(), claim.None, db, o.UserID, "CUP")
		if err != nil {
			t.Fatal(err)
		}
		if err := cancelOrder(t, db, other.ID); err != nil {
			t.Fatal(err)
		}
		if created, err := db.Payments().Create(t.Context(), claim.None, other.ID, again); created || err != nil {
			t.Errorf("Create for an order that was cancelled = %t, %v", created, err)
		}
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM events WHERE type = 'payment.requested'`); n != 1 {
			t.Errorf("%d payments were requested", n)
		}
	})
}

func TestPayments_are_settled_by_cancelling_or_keep_the_order(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		unsent, _ := givenPayment(t, db, "CUP", at)
		if err := cancelOrder(t, db, unsent.ID); err != nil {
			t.Errorf("Cancel while nothing was sent = %v", err)
		}
		if p := paymentOf(t, db, unsent.ID); p.Status != payment.Failed || p.Failure != payment.FailureOrderCancelled || p.NextAt != nil {
			t.Errorf("the payment of a cancelled order is %+v", p)
		}
		called, p := givenPayment(t, db, "MUG", at)
		if _, err := db.Payments().Update(t.Context(), p.ID, func(p *payment.Payment) error { p.BeginCall(at, time.Minute); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := cancelOrder(t, db, called.ID); !fault.Is(err, order.CodePaymentUnderWay) {
			t.Errorf("Cancel while the provider is called = %v", err)
		}
		if p := paymentOf(t, db, called.ID); p.Known != payment.Unknown || p.Status != payment.Pending {
			t.Errorf("then the payment is %+v", p)
		}
	})
}

func TestPayments_are_claimed_by_one_worker_each(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		const n = 20
		for i := range n {
			givenPayment(t, db, fmt.Sprintf("P%d", i), at)
		}
		var claims, total atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					got, err := db.Payments().UpdateDue(t.Context(), payment.DueCall, at, 3, func(p *payment.Payment) {
						claims.Add(1)
						p.BeginCall(at, time.Minute)
					})
					if err != nil {
						t.Error(err)
					}
					if total.Add(int64(len(got))); len(got) == 0 {
						return
					}
				}
			})
		}
		wg.Wait()
		// A worker may see rows as due that another one has locked, and end; what it left is found later.
		rest, err := db.Payments().UpdateDue(t.Context(), payment.DueCall, at, n, func(p *payment.Payment) { p.BeginCall(at, time.Minute) })
		if err != nil || total.Load()+int64(len(rest)) != n {
			t.Errorf("%d payments were claimed, and then %d, %v; want %d, each once", total.Load(), len(rest), err, n)
		}
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM payments WHERE claim <> 1`); n != 0 {
			t.Errorf("%d payments were not claimed once", n)
		}
	})
}

func TestPayments_keep_the_newest_attempts(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		_, p := givenPayment(t, db, "CUP", at)
		for range payment.KeptAttempts + 3 {
			_, err := db.Payments().Update(t.Context(), p.ID, func(p *payment.Payment) error {
				p.EndCall(payment.Report{Claim: p.Claim, Step: payment.StepCharge, Outcome: payment.OutcomeNotSent, Instance: "one", Message: "gone", At: at, Duration: time.Millisecond}, at, payment.DefaultTiming())
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		found, err := db.Payments().Attempts(t.Context(), []uid.Payment{p.ID})
		got := found[p.ID]
		if err != nil || len(got) != payment.KeptAttempts || got[0].Number != 4 || got[0].Instance != "one" || got[0].Message != "gone" || got[0].Duration != time.Millisecond {
			t.Errorf("%d attempts are kept, the first is %+v, %v", len(got), got[0], err)
		}
	})
}

func TestPayments_inbox_applies_each_message_once_and_waits_for_payments(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenProduct(t, db, "CUP", 5)
		o, err := placeOrder(t.Context(), claim.None, db, givenUser(t, db).ID, "CUP")
		if err != nil {
			t.Fatal(err)
		}
		p := payment.New(placedOf(o), at, time.Hour)
		c := payment.Callback{ID: "msg_1", Payment: p.ID, Answer: payment.Answer{Status: payment.AnswerSucceeded, Reference: "ch_1"}, At: at}
		for range 2 {
			if err := db.Payments().AddCallback(t.Context(), c, at); err != nil {
				t.Fatal(err)
			}
		}
		applied := 0
		apply := func(when time.Time) int {
			t.Helper()
			n, err := db.Payments().ApplyCallbacks(t.Context(), when, 10, func(p *payment.Payment, c payment.Callback) {
				applied++
				p.ReceiveCallback(c, when)
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if n := apply(at); n != 0 {
			t.Errorf("%d messages were applied before their payment was there", n)
		}
		if _, err := db.Payments().Create(t.Context(), claim.None, o.ID, func() *payment.Payment { return p }); err != nil {
			t.Fatal(err)
		}
		if n := apply(at); n != 0 {
			t.Error("a message was looked at again at once")
		}
		if n := apply(at.Add(time.Minute)); n != 1 {
			t.Errorf("%d messages were applied, want 1", n)
		}
		if n := apply(at.Add(time.Hour)); n != 0 || applied != 1 {
			t.Errorf("messages were applied %d times", applied)
		}
		if p := paymentOf(t, db, o.ID); p.Status != payment.Succeeded || p.Reference != "ch_1" {
			t.Errorf("the payment is %+v", p)
		}
		if b, err := db.Payments().Backlog(t.Context(), at); err != nil || b.Callbacks != 0 || b.Pending != 0 {
			t.Errorf("the backlog is %+v, %v", b, err)
		}
	})
}

func TestPayments_lists_and_backlog(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		_, first := givenPayment(t, db, "CUP", at)
		o, second := givenPayment(t, db, "MUG", at.Add(time.Minute))
		if _, err := db.Payments().Update(t.Context(), second.ID, func(p *payment.Payment) error {
			p.ReceiveCallback(payment.Callback{Answer: payment.Answer{Status: payment.AnswerFailed, Failure: "card_declined"}}, at)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		before := at.Add(time.Second)
		for name, tt := range map[string]struct {
			f    payment.Filter
			want string
		}{
			"all":           {payment.Filter{}, string(second.ID + first.ID)},
			"pending":       {payment.Filter{Status: []payment.Status{payment.Pending, payment.Refunding}}, string(first.ID)},
			"of an order":   {payment.Filter{OrderID: &o.ID}, string(second.ID)},
			"of a user":     {payment.Filter{UserID: &first.UserID}, string(first.ID)},
			"before a time": {payment.Filter{CreatedBefore: &before}, string(first.ID)},
			"after a time":  {payment.Filter{CreatedAfter: &before}, string(second.ID)},
		} {
			p, err := db.Payments().List(t.Context(), tt.f, payment.ByCreatedDesc, page.Args{})
			got := ""
			for _, x := range p.Items {
				got += string(x.ID)
			}
			if err != nil || got != tt.want {
				t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
			}
			if n, err := db.Payments().Count(t.Context(), tt.f); err != nil || n != len(p.Items) {
				t.Errorf("%s: Count = %d, %v", name, n, err)
			}
		}
		b, err := db.Payments().Backlog(t.Context(), at.Add(time.Minute))
		if err != nil || b.Pending != 1 || b.Waiting.Round(time.Second) != time.Minute || b.Oldest.Round(time.Second) != time.Minute {
			t.Errorf("the backlog is %+v, %v", b, err)
		}
	})
}
