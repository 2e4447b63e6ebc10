package store_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/order/ordertest"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/user/usertest"
	"github.com/backplane-dev/backplane/internal/validate"
)

// at is when everything happens: with digits that no database keeps.
var at = time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.UTC)

// eachKind runs a suite on SQLite and on PostgreSQL; open gives a database for
// each of its tests.
func eachKind(t *testing.T, suite func(t *testing.T, open func(testing.TB) *store.DB)) {
	t.Helper()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testenv.SQLite, "postgres": testenv.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite(t, func(t testing.TB) *store.DB { return testenv.Open(t, store.Config{URL: url(t)}) })
		})
	}
}

func TestOrders_AndProducts(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, open func(testing.TB) *store.DB) {
		ordertest.Run(t, func(t testing.TB) ordertest.Stores {
			db := open(t)
			return ordertest.Stores{
				Orders: db.Orders(), Products: db.Products(),
				Customer: func(t testing.TB) uid.User { return givenUser(t, db).ID },
				Inactive: func(t testing.TB) uid.User { return givenInactive(t, db).ID },
			}
		})
	})
}

func TestUsers(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, open func(testing.TB) *store.DB) {
		usertest.Run(t, func(t testing.TB) user.Store { return open(t).Users() })
	})
}

func TestSessions(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, open func(testing.TB) *store.DB) {
		sessiontest.Run(t, func(t testing.TB) sessiontest.Subject {
			db := open(t)
			return sessiontest.Subject{
				Store: db.Sessions(), Secrets: db.Secrets(), Events: func(t testing.TB) []event.Event { return sessionEvents(t, db) },
				AddAccount: func(t testing.TB, a sessiontest.NewAccount) uid.User { return addAccount(t, db, a) },
			}
		})
	})
}

func sessionEvents(t testing.TB, db *store.DB) (events []event.Event) {
	for _, l := range db.Log(t) {
		if !strings.HasPrefix(string(l.Type), "user.") {
			events = append(events, l.Event)
		}
	}
	return events
}

func addAccount(t testing.TB, db *store.DB, a sessiontest.NewAccount) uid.User {
	t.Helper()
	if len(a.Roles) == 0 {
		a.Roles = []auth.Role{auth.Customer}
	}
	p := user.Profile{Username: a.Username}
	if a.Email != "" {
		p.Email = &a.Email
	}
	u, err := user.New(p, a.Roles, nil, at)
	if err != nil {
		t.Fatal(err)
	}
	if u, err = db.Users().Create(t.Context(), claim.None, u, user.PasswordHash(a.PasswordHash)); err != nil {
		t.Fatal(err)
	}
	if a.Inactive {
		deactivateUser(t, db, u.ID)
	}
	return u.ID
}

var names atomic.Int64

func givenUser(t testing.TB, db *store.DB, roles ...auth.Role) *user.User {
	t.Helper()
	name := fmt.Sprint("user", names.Add(1))
	id := addAccount(t, db, sessiontest.NewAccount{Username: name, Email: name + "@example.org", Roles: roles, PasswordHash: "hash of " + name})
	found, err := db.Users().ByIDs(t.Context(), []uid.User{id})
	if err != nil {
		t.Fatal(err)
	}
	return found[id]
}

func givenInactive(t testing.TB, db *store.DB) *user.User {
	t.Helper()
	return deactivateUser(t, db, givenUser(t, db).ID)
}

func deactivateUser(t testing.TB, db *store.DB, id uid.User) *user.User {
	t.Helper()
	u, err := db.Users().UpdateCountingAdmins(t.Context(), claim.None, id, func(u *user.User, others int) error {
		return u.Apply(user.Change{Status: validate.Of(user.Deactivated)}, others+1, at) // also the last admin
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func givenProduct(t testing.TB, db *store.DB, sku string, stock int) *order.Product {
	t.Helper()
	p, s, err := order.NewProduct(order.ProductInput{SKU: sku, Name: sku, Price: money.Money{Minor: 250, Currency: "EUR"}, Stock: stock, Active: true}, at)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = db.Products().Create(t.Context(), claim.None, p, s); err != nil {
		t.Fatal(err)
	}
	return p
}
