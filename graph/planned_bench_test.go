package graph_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// heldList is a store of orders that keeps the page it has read first, besides orders and lines.
type heldList struct {
	*heldOrders

	once sync.Once
	list page.Page[*order.Order]
	err  error
}

func (s *heldList) List(ctx context.Context, f order.Filter, by order.OrderBy, args page.Args) (page.Page[*order.Order], error) {
	s.once.Do(func() { s.list, s.err = s.heldOrders.List(ctx, f, by, args) })
	return s.list, s.err
}

const ordersWithUsers = `{ orders(first: 50) { nodes { id number status placedAt total { amount currency }
	user { id username } items { sku name quantity total { amount currency } } } } }`

// The response to ordersWithUsers, for encoding/json.
type (
	benchMoney struct {
		Amount   string `json:"amount"`
		Currency string `json:"currency"`
	}
	benchOrder struct {
		ID       string     `json:"id"`
		Number   string     `json:"number"`
		Status   string     `json:"status"`
		PlacedAt time.Time  `json:"placedAt"`
		Total    benchMoney `json:"total"`
		User     struct {
			ID       string `json:"id"`
			Username string `json:"username"`
		} `json:"user"`
		Items []struct {
			SKU      string     `json:"sku"`
			Name     string     `json:"name"`
			Quantity int        `json:"quantity"`
			Total    benchMoney `json:"total"`
		} `json:"items"`
	}
	benchResponse struct {
		Orders struct {
			Nodes []*benchOrder `json:"nodes"`
		} `json:"orders"`
	}
)

// BenchmarkExecutors runs 50 orders with users and lines, all of it in memory: by both executors,
// and by encoding/json for the response alone. Compare within one run.
func BenchmarkExecutors(b *testing.B) {
	s := newServer(b, testenv.SQLite(b), holding, func(_ *server, st stores) stores {
		st.orders = &heldList{heldOrders: st.orders.(*heldOrders)}
		return st
	})
	s.fill(b, demo.Size{Users: 120, Orders: 300, Lines: 3})
	x := executorsOf(b, s)
	var response benchResponse
	for name, exec := range map[string]*executor.Executor{"gqlgen": x.reference, "planned": x.planned} {
		ctx := auth.With(b.Context(), staff)
		op, refusal := exec.Prepare(ctx, executor.Request{Query: ordersWithUsers})
		if refusal != nil {
			b.Fatal(refusal.Errors)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp, err := exec.Run(ctx, op)
				if err != nil || len(resp.Errors) > 0 {
					b.Fatal(err, resp.Errors)
				}
				if len(response.Orders.Nodes) == 0 {
					if err := json.Unmarshal(resp.Data, &response); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(response); err != nil {
				b.Fatal(err)
			}
		}
	})
}
