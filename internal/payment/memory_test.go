package payment_test

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// memory is a payment.Store of the one payment of a world. Its transactions cannot fail. It claims no deliveries, so that events that come
// twice meet the domain.
type memory struct {
	payment.Store

	world    *world
	p        *payment.Payment
	inbox    []payment.Callback
	messages map[string]bool // ids of messages that came
}

func (m *memory) Create(_ context.Context, _ claim.Claim, _ uid.Order, create func() *payment.Payment) (bool, error) {
	if m.p != nil || m.world.order.Status != order.Pending {
		return false, nil
	}
	m.p = create()
	m.commit()
	return true, nil
}

func (m *memory) commit() {
	m.world.log = append(m.world.log, m.p.TakeEvents()...)
	m.p.TakeAttempts()
}

func (m *memory) Update(_ context.Context, _ uid.Payment, fn func(*payment.Payment) error) (*payment.Payment, error) {
	err := fn(m.p)
	m.commit()
	return m.p, err
}

func (m *memory) UpdateByOrder(ctx context.Context, _ claim.Claim, _ uid.Order, fn func(*payment.Payment) error) (*payment.Payment, error) {
	if m.p == nil {
		return nil, nil
	}
	return m.Update(ctx, m.p.ID, fn)
}

func (m *memory) UpdateDue(_ context.Context, due payment.Due, at time.Time, _ int, fn func(*payment.Payment)) ([]*payment.Payment, error) {
	if m.p == nil {
		return nil, nil
	}
	when := m.p.NextAt
	if due == payment.DueDeadline {
		when = m.p.DeadlineAt
	}
	if when == nil || when.After(at) {
		return nil, nil
	}
	fn(m.p)
	m.commit()
	was := *m.p
	return []*payment.Payment{&was}, nil
}

func (m *memory) AddCallback(_ context.Context, c payment.Callback, _ time.Time) error {
	if !m.messages[c.ID] {
		m.messages[c.ID] = true
		m.inbox = append(m.inbox, c)
	}
	return nil
}

func (m *memory) ApplyCallbacks(_ context.Context, _ time.Time, _ int, fn func(*payment.Payment, payment.Callback)) (int, error) {
	if m.p == nil {
		return 0, nil
	}
	n := len(m.inbox)
	for _, c := range m.inbox {
		fn(m.p, c)
	}
	m.inbox = nil
	m.commit()
	return n, nil
}

// orderMemory is an order.Store of the order of a world, with the rule of package store: an order is cancelled together
// with its payment.
type orderMemory struct {
	order.Store

	world *world
}

func (m orderMemory) Update(_ context.Context, _ claim.Claim, _ uid.Order, fn func(*order.Order) error) (*order.Order, error) {
	w := m.world
	o := *w.order
	o.Loaded()
	if err := fn(&o); err != nil {
		return nil, err
	}
	events := o.TakeEvents()
	if p := w.store.p; p != nil && o.Status == order.Cancelled && w.order.Status != order.Cancelled {
		if !p.CancelOrder(w.now) {
			return nil, order.PaymentUnderWay()
		}
		w.store.commit()
	}
	if o.ReturnsStock() {
		w.stock++
	}
	w.order = &o
	w.log = append(w.log, events...)
	return &o, nil
}
