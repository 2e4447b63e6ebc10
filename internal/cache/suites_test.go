package cache_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order/ordertest"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/user/usertest"
	"github.com/backplane-dev/backplane/internal/validate"
)

// eachKind runs a suite on each database, with and without Redis.
func eachKind(t *testing.T, suite func(t *testing.T, open func(testing.TB) *node)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testenv.SQLite, "postgres": testenv.Postgres} {
		for level, redis := range map[string]func(testing.TB) string{"in process": func(testing.TB) string { return "" }, "with Redis": testenv.Redis} {
			if testing.Short() && (name == "sqlite") == (level == "with Redis") {
				continue
			}
			t.Run(name+" "+level, func(t *testing.T) {
				t.Parallel()
				suite(t, func(t testing.TB) *node { return start(t, options{url: url(t), redis: redis(t)}) })
			})
		}
	}
}

func TestOrders_and_Products_pass_the_suite(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, open func(testing.TB) *node) {
		ordertest.Run(t, func(t testing.TB) ordertest.Stores {
			n := open(t)
			return ordertest.Stores{
				Orders: n.orders, Products: n.products,
				Customer: func(t testing.TB) uid.User { return n.user(t).ID },
				Inactive: func(t testing.TB) uid.User { return n.deactivated(t, n.user(t).ID) },
			}
		})
	})
}

func TestUsers_pass_the_suite(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, open func(testing.TB) *node) {
		usertest.Run(t, func(t testing.TB) user.Store { return open(t).users })
	})
}

func (n *node) deactivated(t testing.TB, id uid.User) uid.User {
	t.Helper()
	_, err := n.users.UpdateCountingAdmins(t.Context(), claim.None, id, func(u *user.User, others int) error {
		return u.Apply(user.Change{Status: validate.Of(user.Deactivated)}, others+1, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}
