// Command demo shows payments at work, and ends by itself: `make demo`.
//
// It starts a server and two payment services as processes of their own, places orders, kills one of the
// services in the middle, and reports what became of the money. It needs Go alone, writes to a temporary
// folder, and exits with 0 only if everything is as it should be.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	orders  = 60                     // that are placed
	clients = 4                      // that place them at the same time
	killAt  = orders / 2             // so many orders are placed when the service is killed
	pace    = 150 * time.Millisecond // between two orders of a client, so that payments are under way then
	limit   = 90 * time.Second       // of the whole demo, the building left out
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		sayf("\nThe demo failed: %v", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "backplane-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sayf("Building the server and a payment service …")
	s := &stage{dir: dir}
	if err := s.build(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = play(ctx, s)
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("not over after %v: %w", limit, err)
	}
	if err != nil {
		s.printLogs()
	}
	s.killAll()
	return err
}

// play is the demo, from the start of its processes to their end.
func play(ctx context.Context, s *stage) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	sayf("\nA server and two payment services run; till-2 knows its outcomes a second later. %d orders are placed; one of the services is killed in the middle.", orders)
	placed, err := placeOrders(ctx, s)
	if err != nil {
		return err
	}
	if err := s.reportPaid(ctx, placed); err != nil {
		return err
	}
	if err := s.showDecline(ctx); err != nil {
		return err
	}
	if err := s.showRefund(ctx, placed[0]); err != nil {
		return err
	}
	if err := s.compareMoney(ctx); err != nil {
		return err
	}
	if err := s.close(); err != nil {
		return err
	}
	sayf("\nEverything is as it should be.")
	return nil
}

// placeOrders places the orders from several clients, and kills a payment service once a third is placed.
func placeOrders(ctx context.Context, s *stage) (placed []string, err error) {
	var mu sync.Mutex
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, clients)
	for c := range clients {
		all.Go(func() {
			for n := next.Add(1); n <= orders && errs[c] == nil; n = next.Add(1) {
				if n == killAt {
					s.services[0].kill()
					sayf("  killed    till-1, after %d orders (kill -9)", n)
				}
				id, err := s.placeOrder(ctx, "mug", 1+int(n)%3)
				errs[c] = err
				mu.Lock()
				placed = append(placed, id)
				mu.Unlock()
				time.Sleep(pace)
			}
		})
	}
	all.Wait()
	return placed, errors.Join(errs...)
}

// reportPaid waits until every order is paid, and says by whom and how.
func (s *stage) reportPaid(ctx context.Context, placed []string) error {
	begun := time.Now()
	by, late := map[string]int{}, 0
	for _, id := range placed {
		o, err := s.awaitOrder(ctx, id, "PAID")
		if err != nil {
			return err
		}
		by[o.Payment.Attempts[0].Instance]++
		if slices.ContainsFunc(o.Payment.Attempts, func(a attempt) bool { return a.Outcome == "ACCEPTED" }) {
			late++
		}
	}
	sayf("  paid      all %d orders, %.1f s after the last was placed: %d by till-1, %d by till-2", len(placed), time.Since(begun).Seconds(), by["till-1"], by["till-2"])
	sayf("            %d of them were accepted at first, and settled by a signed callback", late)
	return nil
}

// showDecline places an order whose card is declined: it ends CANCELLED, and its stock is back.
func (s *stage) showDecline(ctx context.Context) error {
	id, err := s.placeOrder(ctx, "lamp", 1)
	if err != nil {
		return err
	}
	o, err := s.awaitOrder(ctx, id, "CANCELLED")
	if err != nil {
		return err
	}
	stock, err := s.stock(ctx, "lamp")
	if err != nil {
		return err
	}
	if stock != lampStock || o.Payment.Failure != "card_declined" {
		return fmt.Errorf("after a decline the stock is %d and the failure %q, want %d and card_declined", stock, o.Payment.Failure, lampStock)
	}
	sayf("  declined  order %s (%s): CANCELLED, its stock of %d is back", o.Number, o.Payment.Failure, stock)
	return nil
}

// showRefund refunds a paid order.
func (s *stage) showRefund(ctx context.Context, id string) error {
	if err := s.refundOrder(ctx, id); err != nil {
		return err
	}
	o, err := s.awaitOrder(ctx, id, "REFUNDED")
	if err != nil {
		return err
	}
	sayf("  refunded  order %s: %s %s went back through the payment service", o.Number, o.Total.Amount, o.Total.Currency)
	return nil
}

// compareMoney compares what the shop has earned with what the payment services have charged, by their own
// database, to the cent.
func (s *stage) compareMoney(ctx context.Context) error {
	earned, err := s.earned(ctx)
	if err != nil {
		return err
	}
	charged, payments, err := s.charged(ctx)
	if err != nil {
		return err
	}
	if earned != charged || payments != orders {
		return fmt.Errorf("the shop has earned %d cents, the payment services have charged %d in %d payments, want %d", earned, charged, payments, orders)
	}
	sayf("  money     the shop has earned EUR %s, the payment services have charged EUR %s, refunds left out", euros(earned), euros(charged))
	return nil
}

func euros(cents int64) string { return fmt.Sprintf("%d.%02d", cents/100, cents%100) }

// sayf prints a line of the report.
func sayf(format string, args ...any) {
	fmt.Println(strings.TrimRight(fmt.Sprintf(format, args...), " ")) //nolint:forbidigo // the report is what the program is for
}
