package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// givenHistory creates rows of every kind that an audit checks.
func givenHistory(t *testing.T, db *store.DB) {
	t.Helper()
	who := givenUser(t, db)
	cup := givenProduct(t, db, "cup", 100)
	givenProduct(t, db, "pot", 100)
	if _, err := db.Products().UpdateStock(t.Context(), claim.None, cup.ID, func(p *order.Product, s *order.Stock) error { return p.Adjust(s, -7, at) }); err != nil {
		t.Fatal(err)
	}
	pay := func(o *order.Order) error { return o.Pay(at) }
	ship := func(o *order.Order) error { return o.Ship(at) }
	refund := func(o *order.Order) error { return o.Refund(at) }
	cancel := func(o *order.Order) error { return o.Cancel("", at) }
	ask := func(o *order.Order) error { return o.RequestRefund("", at) }
	for i, moves := range [][]func(*order.Order) error{{}, {cancel}, {pay, ask}, {pay, refund}, {pay, ship}, {pay, ship, ask, refund}} {
		o, err := placeOrder(t.Context(), callUnder(who.ID, fmt.Sprint(i)), db, who.ID, "cup", "pot")
		if err != nil {
			t.Fatal(err)
		}
		for _, move := range moves {
			if _, err := db.Orders().Update(t.Context(), claim.None, o.ID, move); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAudit_finds_nothing_in_consistent_data(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenHistory(t, db)
		if _, err := db.Users().UpdateCountingAdmins(t.Context(), claim.None, givenUser(t, db).ID, func(u *user.User, others int) error { return u.Delete(others, at) }); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Users().UpdateCountingAdmins(t.Context(), claim.None, givenUser(t, db).ID, func(u *user.User, others int) error {
			return u.Apply(user.Change{Status: validate.Of(user.Deactivated)}, others, at)
		}); err != nil {
			t.Fatal(err)
		}
		if found, err := db.Audit(t.Context()); len(found) > 0 || err != nil {
			t.Errorf("Audit = %v, %v; want no findings", found, err)
		}
	})
}

func TestAudit_finds_each_inconsistency(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, tamper, want string }{
		{"a unit too few", `UPDATE stocks SET quantity = quantity - 1 WHERE product_id = (SELECT id FROM products WHERE sku = 'cup')`, "stock plus what orders took"},
		{"an adjustment without an event", `UPDATE stocks SET quantity = quantity + 1, received = received + 1`, "its adjustments in the log"},
		{"a total that the lines do not add up to", `UPDATE orders SET total_minor = total_minor + 1`, "add up to its total"},
		{"a line at another price", `UPDATE order_items SET unit_price_minor = unit_price_minor + 1`, "price times its quantity"},
		{"an order without its event", `DELETE FROM events WHERE type = 'order.placed'`, "was placed once in the log"},
		{"a state that no event led to", `UPDATE orders SET status = 'DELIVERED' WHERE status = 'SHIPPED'`, "where its last event left it"},
		{"a change without an event", `UPDATE orders SET version = version + 1`, "where its last event left it"},
		{"stock of a refund that was never given back", `UPDATE orders SET stock_returned = NOT stock_returned WHERE status = 'REFUNDED'`, "gave its stock back"},
		{"an ADMIN in name only", `UPDATE users SET roles = 'ADMIN'`, "marked as ADMIN"},
		{"a call that forgot its object", `UPDATE idempotency_keys SET object_id = ''`, "knows its object"},
		{"a product without stock", `DELETE FROM stocks`, "every product has a stock"},
		{"events that swapped positions", `UPDATE events SET position = 1000 - seq`, "in the order in which they were made"},
		{"two timelines", `INSERT INTO timelines (id) VALUES ('another')`, "has one timeline"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testenv.EachDB(t, func(t *testing.T, db *store.DB) {
				givenHistory(t, db)
				db.Exec(t, tt.tamper)
				found, err := db.Audit(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(found, func(f store.Finding) bool {
					return strings.Contains(f.Check, tt.want) && f.Subject != "" && f.Detail != ""
				}) {
					t.Errorf("Audit = %v, want a finding about %q", found, tt.want)
				}
			})
		})
	}
}
