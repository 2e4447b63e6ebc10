package store_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"backplane/internal/auth"
	"backplane/internal/input"
	"backplane/internal/order/ordertest"
	"backplane/internal/store"
	"backplane/internal/testenv"
	"backplane/internal/uid"
	"backplane/internal/user"
)

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestOrders_AndProducts(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, _ string) {
		open := map[bool]func(testing.TB) string{true: testenv.SQLite, false: testenv.Postgres}[t.Name() == "TestOrders_AndProducts/sqlite"]
		ordertest.Run(t, func(t testing.TB) ordertest.Stores {
			db := testenv.Open(t, store.Config{URL: open(t)})
			return ordertest.Stores{
				Orders: db.Orders(), Products: db.Products(),
				Customer: func(t testing.TB) uid.User { return givenUser(t, db).ID },
				Inactive: func(t testing.TB) uid.User { return givenInactive(t, db).ID },
			}
		})
	})
}

var names atomic.Int64

func givenUser(t testing.TB, db *store.DB, roles ...auth.Role) *user.User {
	t.Helper()
	if len(roles) == 0 {
		roles = []auth.Role{auth.Customer}
	}
	name := fmt.Sprint("user", names.Add(1))
	email := name + "@example.org"
	u, err := user.New(user.Profile{Username: name, Email: &email, Name: "A Person"}, roles, nil, at)
	if err != nil {
		t.Fatal(err)
	}
	u, err = db.Users().Create(t.Context(), u, "hash of "+user.Credential(name))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func givenInactive(t testing.TB, db *store.DB) *user.User {
	t.Helper()
	u, err := db.Users().UpdateStanding(t.Context(), givenUser(t, db).ID, func(u *user.User, others int) error {
		return u.Apply(user.Change{Status: input.Of(user.Deactivated)}, others, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}
