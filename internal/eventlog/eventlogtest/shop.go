package eventlogtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Shop is a node with products, whose stocks show what consumers did: each
// event product.updated adds one to the stock of its product.
type Shop struct {
	*Node
	Products []uid.Product
	Wanted   map[uid.Product]int // updates so far
	Ahead    time.Duration       // by which events of Update happen after the present
}

// OpenShop opens the database and creates products in it.
func OpenShop(t testing.TB, url string, products int) *Shop {
	t.Helper()
	w := &Shop{Node: StartNode(t, url, (&notify.Memory{}).Join(), eventlog.PipelineConfig{}), Wanted: map[uid.Product]int{}}
	for i := range products {
		p, s, err := order.NewProduct(order.ProductInput{
			SKU: fmt.Sprint("sku", i), Name: "x", Price: money.Money{Minor: 250, Currency: "EUR"}, Active: true,
		}, time.Now())
		if err == nil {
			p, err = w.DB.Products().Create(t.Context(), claim.None, p, s)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.Products = append(w.Products, p.ID)
	}
	return w
}

// Update changes a product n times.
func (w *Shop) Update(t testing.TB, id uid.Product, n int) {
	t.Helper()
	for range n {
		w.Wanted[id]++
		_, err := w.DB.Products().Update(t.Context(), claim.None, id, func(p *order.Product) error {
			return p.Apply(order.ProductChange{Name: validate.Of(fmt.Sprint("name ", w.Wanted[id]))}, time.Now().Add(w.Ahead))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Count is the handler: one more in stock.
func (w *Shop) Count(ctx context.Context, d claim.Delivery, e *event.Event) error {
	_, err := w.DB.Products().UpdateStock(ctx, d, uid.Product(e.SubjectID), func(p *order.Product, s *order.Stock) error {
		return p.Adjust(s, 1, time.Now())
	})
	return err
}

// Head returns the end of the log once everything in it has a position.
func (w *Shop) Head(t testing.TB) (head event.Position) {
	t.Helper()
	testenv.Eventually(t, "all events have positions", func() bool {
		s, err := w.DB.Events().State(t.Context())
		head = s.Head
		return err == nil && s.Behind == 0
	})
	return head
}
