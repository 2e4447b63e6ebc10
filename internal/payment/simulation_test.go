package payment_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/uid"
)

// TestSimulation_ends_consistently runs one order through every sequence of what can happen to it, up to a depth, with
// the domain's own code, a store and a provider in memory, and a clock that stands still between the steps. After each
// sequence all that is broken is mended, the time passes, and the end must be consistent: see world.checkEnd. What must
// hold at every moment is in world.check.
//
// Sequences that lead to equal worlds are followed once. TestMutants_are_caught removes one guard at a time.
func TestSimulation_ends_consistently(t *testing.T) {
	t.Parallel()
	depth := 10
	if os.Getenv("BACKPLANE_TEST_SOAK") == "on" {
		depth = 18
	}
	seen := map[string]bool{}
	frontier := [][]int{nil}
	for d := 0; d <= depth; d++ {
		var deeper [][]int
		for _, path := range frontier {
			for i := range actions {
				next := append(slices.Clone(path), i)
				w, ok := replay(t, next)
				if !ok {
					continue
				}
				key := w.key()
				if seen[key] {
					continue
				}
				seen[key] = true
				deeper = append(deeper, next)
				w.check()
				if w.fault == "" {
					w.quiesce()
					w.checkEnd()
				}
				if w.fault != "" {
					t.Fatalf("after %s: %s\n%s", names(next), w.fault, w.describe())
				}
			}
		}
		t.Logf("depth %d: %d worlds", d+1, len(deeper))
		frontier = deeper
	}
}

// replay makes a world and runs the actions; ok is false if one of them is not possible.
func replay(t *testing.T, path []int) (w *world, ok bool) {
	t.Helper()
	w = newWorld(t)
	for _, i := range path {
		if w.fault != "" {
			return w, false
		}
		if !actions[i].run(w) {
			return w, false
		}
	}
	return w, true
}

func names(path []int) string {
	all := make([]string, len(path))
	for i, a := range path {
		all[i] = actions[a].name
	}
	return strings.Join(all, ", ")
}

// action is something that can happen; run returns false if it cannot now.
type action struct {
	name string
	run  func(*world) bool
}

// actions are what the issue of payments is about: our commit, the provider accepts, accepts twice, the answer is lost, a late
// callback, a callback before our commit, an instance dies, the server dies, the customer cancels, staff refunds, retry, deadline.
var actions = []action{
	{"payments consumer", (*world).consumeOrderEvent},
	{"order consumer", (*world).consumePaymentEvent},
	{"order event again", (*world).repeatOrderEvent},
	{"claim", (*world).claim},
	{"call", func(w *world) bool { return w.call(behaves) }},
	{"call answered later", func(w *world) bool { return w.call(accepts) }},
	{"call declined", func(w *world) bool { return w.call(declines) }},
	{"answer lost", func(w *world) bool { return w.call(losesAnswer) }},
	{"not reached", func(w *world) bool { return w.call(notReached) }},
	{"request delayed", func(w *world) bool { return w.call(delays) }},
	{"delayed request arrives", (*world).arrive},
	{"commit of the answer", (*world).storeAnswer},
	{"server dies", (*world).die},
	{"provider decides", func(w *world) bool { return w.decide(payment.AnswerSucceeded) }},
	{"provider declines later", func(w *world) bool { return w.decide(payment.AnswerFailed) }},
	{"callback", (*world).sendCallback},
	{"callbacks applied", (*world).applyCallbacks},
	{"customer cancels", (*world).cancel},
	{"staff refunds", (*world).refund},
	{"time passes", (*world).pass},
	{"deadline", (*world).deadline},
}

type mode int

const (
	behaves mode = iota
	accepts
	declines
	losesAnswer
	notReached
	delays
)

// world is one order with everything around it.
type world struct {
	now      time.Time
	service  *payment.Service
	orders   *order.Service
	worker   *payment.Worker
	store    *memory
	order    *order.Order
	stock    int // changes by cancellations
	log      []event.Event
	ofOrders int // events of orders that the payments consumer has handled, by index in log
	ofPays   int
	held     *payment.Call
	report   *payment.Report
	provider *model
	fault    string

	cancelledByCustomer bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	w.store = &memory{world: w, messages: map[string]bool{}}
	w.provider = &model{world: w, entries: map[string]*entry{}}
	clock := func() time.Time { return w.now }
	w.service = payment.NewService(w.store, clock, payment.Config{Deadline: 5 * time.Minute})
	w.orders = order.NewService(orderMemory{world: w}, clock)
	w.worker = payment.NewWorker(w.service, w.provider, slog.New(slog.DiscardHandler), payment.WorkerConfig{Timeout: time.Minute})
	p := &order.Product{ID: uid.NewProduct(w.now), SKU: "CUP", Active: true, Price: money.Money{Minor: 1290, Currency: "EUR"}}
	o, err := order.Place(order.Details{UserID: uid.NewUser(w.now)}, []order.Want{{SKU: "CUP", Quantity: 1}},
		map[string]order.Offer{"CUP": {Product: p, Stock: &order.Stock{ProductID: p.ID, Quantity: 5}}}, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.order = o.Loaded()
	w.log = o.TakeEvents()
	return w
}

func (w *world) failf(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf(format, args...)
	}
}

// nextOf returns the next event that one of the consumers handles.
func (w *world) nextOf(from int, orders bool) int {
	types := order.PaymentEventTypes()
	if orders {
		types = payment.OrderEventTypes()
	}
	for i := from; i < len(w.log); i++ {
		if slices.Contains(types, w.log[i].Type) {
			return i
		}
	}
	return -1
}

func (w *world) consumeOrderEvent() bool {
	i := w.nextOf(w.ofOrders, true)
	if i < 0 {
		return false
	}
	w.ofOrders = i + 1
	w.handle(w.service.HandleOrderEvent, i)
	return true
}

// repeatOrderEvent delivers the last event again, as a consumer that died before it saved its offset.
func (w *world) repeatOrderEvent() bool {
	if w.ofOrders == 0 {
		return false
	}
	w.handle(w.service.HandleOrderEvent, w.ofOrders-1)
	return true
}

func (w *world) consumePaymentEvent() bool {
	i := w.nextOf(w.ofPays, false)
	if i < 0 {
		return false
	}
	w.ofPays = i + 1
	w.handle(w.orders.HandlePaymentEvent, i)
	return true
}

func (w *world) handle(h func(context.Context, claim.Delivery, *event.Event) error, i int) {
	e := w.log[i]
	if err := h(context.Background(), claim.Delivery{}, &e); err != nil {
		w.failf("handling %s: %v", e.Type, err)
	}
}

func (w *world) claim() bool {
	if w.held != nil || w.report != nil {
		return false
	}
	calls, err := w.worker.Claim(context.Background(), 1)
	if err != nil || len(calls) == 0 {
		return false
	}
	w.held = &calls[0]
	return true
}

func (w *world) call(m mode) bool {
	if w.held == nil || w.report != nil {
		return false
	}
	w.provider.mode = m
	r := w.worker.Make(context.Background(), *w.held)
	w.report = &r
	return true
}

func (w *world) storeAnswer() bool {
	if w.report == nil {
		return false
	}
	if err := w.worker.Store(context.Background(), *w.held, *w.report); err != nil {
		w.failf("storing: %v", err)
	}
	w.held, w.report = nil, nil
	return true
}

func (w *world) die() bool {
	if w.held == nil {
		return false
	}
	w.held, w.report = nil, nil
	return true
}

func (w *world) arrive() bool {
	if len(w.provider.delayed) == 0 {
		return false
	}
	late := w.provider.delayed[0]
	w.provider.delayed = w.provider.delayed[1:]
	late.process()
	return true
}

func (w *world) decide(s payment.AnswerStatus) bool {
	done := false
	for _, e := range w.provider.entries {
		if e.answer.Status == payment.AnswerPending {
			e.answer.Status, done = s, true
		}
	}
	return done
}

// sendCallback sends what the provider knows, of the charge and of the refund.
func (w *world) sendCallback() bool {
	if w.store.p == nil && w.provider.lastPayment == "" {
		return false
	}
	sent := false
	for key, e := range w.provider.entries {
		if e.told == e.answer.Status {
			continue
		}
		c := payment.Callback{ID: fmt.Sprintf("%s:%s", key, e.answer.Status), Payment: w.provider.lastPayment, Answer: e.answer, At: w.now}
		if strings.HasPrefix(key, "rfd_") {
			c.Refund = payment.RefundID(key)
		}
		for range 2 { // twice, always
			if err := w.service.ReceiveCallback(context.Background(), c); err != nil {
				w.failf("callback: %v", err)
			}
		}
		e.told, sent = e.answer.Status, true
	}
	return sent
}

func (w *world) applyCallbacks() bool {
	n, err := w.worker.ApplyCallbacks(context.Background())
	if err != nil {
		w.failf("apply callbacks: %v", err)
	}
	return n > 0
}

func (w *world) cancel() bool {
	if w.order.Status != order.Pending {
		return false
	}
	failed := w.store.p != nil && w.store.p.Status == payment.Failed // the order is about to be cancelled anyhow
	_, err := orderMemory{world: w}.Update(context.Background(), claim.None, w.order.ID, func(o *order.Order) error { return o.Cancel("", w.now) })
	if err == nil && !failed {
		w.cancelledByCustomer = true
		if w.held != nil && w.held.Step == payment.StepCharge || len(w.provider.entries) > 0 || len(w.provider.delayed) > 0 {
			w.failf("the customer could cancel while a charge was under way")
		}
	}
	return true
}

func (w *world) refund() bool {
	if w.order.RefundRequestedAt != nil || w.order.Status != order.Paid {
		return false
	}
	_, err := orderMemory{world: w}.Update(context.Background(), claim.None, w.order.ID, func(o *order.Order) error { return o.RequestRefund("", w.now) })
	return err == nil
}

// pass moves the clock to when something is due next.
func (w *world) pass() bool {
	p := w.store.p
	if p == nil || p.NextAt == nil || !p.NextAt.After(w.now) {
		return false
	}
	w.moveTo(p.NextAt.Add(time.Microsecond))
	return true
}

// moveTo moves the clock. No network delays a request for as long as Timing.Quiet.
func (w *world) moveTo(at time.Time) {
	for len(w.provider.delayed) > 0 && at.Sub(w.provider.delayed[0].sent) >= payment.DefaultTiming().Quiet {
		w.arrive()
	}
	w.now = at
}

func (w *world) deadline() bool {
	p := w.store.p
	if p == nil || p.DeadlineAt == nil {
		return false
	}
	if p.DeadlineAt.After(w.now) {
		w.moveTo(*p.DeadlineAt)
	}
	if _, err := w.worker.Expire(context.Background()); err != nil {
		w.failf("expire: %v", err)
	}
	return true
}

// quiesce mends everything and lets time pass until nothing more happens.
func (w *world) quiesce() {
	w.provider.mode = behaves
	for range 400 {
		progress := w.decide(payment.AnswerSucceeded) || w.storeAnswer() || w.consumeOrderEvent() || w.consumePaymentEvent() || w.applyCallbacks()
		if w.held != nil {
			progress = w.call(behaves) || progress
		}
		if progress || w.claim() || w.pass() || w.arrive() {
			continue
		}
		if w.nextOf(w.ofOrders, true) < 0 && w.nextOf(w.ofPays, false) < 0 {
			return
		}
	}
	w.failf("it never ends")
}

// check is what holds at every moment.
func (w *world) check() {
	if n := w.provider.charged(); n > 1 {
		w.failf("%d charges stand", n)
	}
	if n := w.provider.refunds(); n > 1 {
		w.failf("%d refunds stand", n)
	}
	if w.cancelledByCustomer && w.provider.lastPayment != "" {
		w.failf("the provider was asked for an order that the customer had cancelled")
	}
}

// checkEnd is what holds once nothing more happens: the order has ended, the money is where the order says, and so is the stock.
func (w *world) checkEnd() {
	w.check()
	net := w.provider.charged() - w.provider.refunds()
	refundDeclined := w.provider.declinedRefund()
	switch w.order.Status {
	case order.Paid:
		if net != 1 || w.stock != 0 || w.order.RefundRequestedAt != nil && !refundDeclined {
			w.failf("the order is PAID, %d charges stand, %d units are back, a refund was requested: %t", net, w.stock, w.order.RefundRequestedAt != nil)
		}
	case order.Cancelled, order.Refunded:
		if net != 0 && !refundDeclined || w.stock != 1 {
			w.failf("the order is %s, %d charges stand, %d units are back", w.order.Status, net, w.stock)
		}
	case order.Pending, order.Shipped, order.Delivered:
		w.failf("the order stays %s", w.order.Status)
	}
	if p := w.store.p; p != nil && p.NextStep() != payment.StepNone {
		w.failf("the payment stays %s", p.State)
	}
}

// key is equal for worlds that go on equally.
func (w *world) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %t %d|%d %d %d|", w.order.Status, w.order.RefundRequestedAt != nil, w.stock, len(w.log), w.ofOrders, w.ofPays)
	for _, e := range w.log {
		b.WriteString(string(e.Type) + " ")
	}
	if p := w.store.p; p != nil {
		claimed, fresh := p.ClaimState()
		fmt.Fprintf(&b, "|%s %s %t %t %t %t", p.State, p.Failure, claimed, fresh, p.DeadlineAt != nil, p.NextAt != nil && p.NextAt.After(w.now))
		if p.SentAt != nil {
			fmt.Fprintf(&b, " %t", w.now.Sub(*p.SentAt) >= payment.DefaultTiming().Quiet)
		}
	}
	if w.held != nil {
		fmt.Fprintf(&b, "|held %s %s %t", w.held.Step, w.held.Payment.State, w.store.p.Claim == w.held.Payment.Claim)
	}
	if w.report != nil {
		fmt.Fprintf(&b, "|report %s %s %s", w.report.Input, w.report.Outcome, w.report.Answer.Status)
	}
	keys := make([]string, 0, len(w.provider.entries))
	for k, e := range w.provider.entries {
		keys = append(keys, fmt.Sprintf("%.3s %s %s %d", k, e.answer.Status, e.told, e.moved))
	}
	slices.Sort(keys)
	fmt.Fprintf(&b, "|%v %d|", keys, len(w.provider.delayed))
	if p := w.store.p; p != nil && len(w.provider.delayed) > 0 {
		fmt.Fprintf(&b, "%s|", w.now.Sub(w.provider.delayed[0].sent).Truncate(time.Minute))
	}
	for _, c := range w.store.inbox {
		fmt.Fprintf(&b, "%s %t ", c.Answer.Status, c.Refund != "")
	}
	return b.String()
}

func (w *world) describe() string { return w.key() }

// model is a provider that keeps its promises: one charge for each id, one refund for each id.
type model struct {
	world       *world
	mode        mode
	entries     map[string]*entry
	delayed     []delayed
	lastPayment uid.Payment
}

// delayed is a request on its way.
type delayed struct {
	sent    time.Time
	process func()
}

type entry struct {
	answer payment.Answer
	told   payment.AnswerStatus // the last status that a callback told
	moved  int                  // how often the money moved
}

func (m *model) charged() (n int) { return m.count("pay_") }
func (m *model) refunds() (n int) { return m.count("rfd_") }
func (m *model) count(prefix string) (n int) {
	for k, e := range m.entries {
		if strings.HasPrefix(k, prefix) && e.answer.Status == payment.AnswerSucceeded {
			n++
		}
	}
	return n
}

func (m *model) declinedRefund() bool {
	for k, e := range m.entries {
		if strings.HasPrefix(k, "rfd_") && e.answer.Status == payment.AnswerFailed {
			return true
		}
	}
	return false
}

var errLost = errors.New("lost")

func (m *model) send(id string, p uid.Payment) (payment.Answer, error) {
	process := func(s payment.AnswerStatus) payment.Answer {
		m.lastPayment = p
		e := m.entries[id]
		if e == nil {
			e = &entry{answer: payment.Answer{Status: s, Reference: "ref", Instance: "one"}}
			if s == payment.AnswerFailed {
				e.answer.Failure = "card_declined"
			}
			m.entries[id] = e
		}
		return e.answer
	}
	switch m.mode {
	case behaves:
		return process(payment.AnswerSucceeded), nil
	case accepts:
		return process(payment.AnswerPending), nil
	case declines:
		return process(payment.AnswerFailed), nil
	case losesAnswer:
		process(payment.AnswerSucceeded)
		return payment.Answer{}, &payment.CallError{Sent: true, Err: errLost}
	case delays:
		m.delayed = append(m.delayed, delayed{m.world.now, func() { process(payment.AnswerSucceeded) }})
		return payment.Answer{}, &payment.CallError{Sent: true, Err: errLost}
	case notReached:
	}
	return payment.Answer{}, &payment.CallError{Err: errLost}
}

func (m *model) find(id string) (payment.Answer, error) {
	switch e := m.entries[id]; {
	case m.mode == notReached:
		return payment.Answer{}, &payment.CallError{Err: errLost}
	case m.mode == losesAnswer && e != nil:
		return payment.Answer{}, &payment.CallError{Sent: true, Err: errLost}
	case e == nil:
		return payment.Answer{}, payment.ErrUnknownToProvider
	default:
		return e.answer, nil
	}
}

func (m *model) Charge(_ context.Context, r payment.ChargeRequest) (payment.Answer, error) {
	return m.send(string(r.Payment), r.Payment)
}

func (m *model) FindPayment(_ context.Context, id uid.Payment) (payment.Answer, error) {
	return m.find(string(id))
}

func (m *model) Refund(_ context.Context, r payment.RefundRequest) (payment.Answer, error) {
	return m.send(string(r.Refund), r.Payment)
}

func (m *model) FindRefund(_ context.Context, _ uid.Payment, id payment.RefundID) (payment.Answer, error) {
	return m.find(string(id))
}
