package rest

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of PostgreSQL

	"github.com/backplane-dev/backplane/e2e/harness"
)

// state is what callers can change: sums by name. What a server changes by itself is not in it,
// such as the health of services.
type state map[string]int64

// countState reads the state. What the system itself does has no actor.
const countState = `
SELECT 'events', count(*) FROM events WHERE actor <> ''
UNION ALL SELECT 'users', count(*) FROM users
UNION ALL SELECT 'users changed', coalesce(sum(version), 0) FROM users
UNION ALL SELECT 'products', count(*) FROM products
UNION ALL SELECT 'products changed', coalesce(sum(version), 0) FROM products
UNION ALL SELECT 'orders', count(*) FROM orders
UNION ALL SELECT 'orders changed', coalesce(sum(version), 0) FROM orders
UNION ALL SELECT 'lines', count(*) FROM order_items
UNION ALL SELECT 'units', coalesce(sum(quantity), 0) FROM stocks
UNION ALL SELECT 'stocks changed', coalesce(sum(version), 0) FROM stocks
UNION ALL SELECT 'services', count(*) FROM services
UNION ALL SELECT 'sessions', count(*) FROM sessions
UNION ALL SELECT 'sessions refreshed', coalesce(sum(generation), 0) FROM sessions
UNION ALL SELECT 'sessions revoked', count(*) FROM sessions WHERE revoked_at IS NOT NULL
UNION ALL SELECT 'keys revoked', count(*) FROM api_keys WHERE revoked_at IS NOT NULL
UNION ALL SELECT 'passwords', coalesce(sum(version), 0) FROM credentials
UNION ALL SELECT 'idempotency keys', count(*) FROM idempotency_keys WHERE scope NOT LIKE 'consumer:%'`

func openDatabase(t testing.TB, database string) *sql.DB {
	t.Helper()
	driver, source := "pgx", database
	if path, embedded := strings.CutPrefix(database, "sqlite:"); embedded {
		driver, source = "sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func readState(db *sql.DB) (state, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	rows, err := db.QueryContext(ctx, countState)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	s := state{}
	for rows.Next() {
		var name string
		var n int64
		if err := rows.Scan(&name, &n); err != nil {
			return nil, err
		}
		s[name] = n
	}
	return s, rows.Err()
}

// since returns what has changed since another state.
func (s state) since(before state) state {
	changed := state{}
	for name, n := range s {
		if n != before[name] {
			changed[name] = n - before[name]
		}
	}
	return changed
}

// oneEffect is what a successful call of an operation adds to the state at most, besides events, its
// idempotency key and what follows from it, such as the units of an order.
var oneEffect = map[string]state{
	"POST /users":               {"users": 1, "users changed": 1},
	"PUT /users/{id}":           {"users changed": 1},
	"PATCH /users/{id}":         {"users changed": 1},
	"DELETE /users/{id}":        {"users changed": 1},
	"POST /products":            {"products": 1, "products changed": 1, "stocks changed": 1},
	"PUT /products/{id}":        {"products changed": 1},
	"PATCH /products/{id}":      {"products changed": 1},
	"DELETE /products/{id}":     {"products changed": 1},
	"POST /products/{id}/stock": {"stocks changed": 1},
	"POST /orders":              {"orders": 1, "orders changed": 1},
	"POST /orders/{id}/cancel":  {"orders changed": 1},
	"POST /orders/{id}/ship":    {"orders changed": 1},
	"POST /orders/{id}/deliver": {"orders changed": 1},
	"POST /orders/{id}/refund":  {"orders changed": 1},
	"POST /services":            {"services": 1},
	"POST /auth/sign-in":        {"sessions": 1, "sessions refreshed": 1},
	"POST /auth/refresh":        {"sessions refreshed": 1}, // none if the token was used a moment ago
	"PUT /users/{id}/password":  {"passwords": 1},
}

// follows are changes that come with the effect of an operation.
var follows = map[string][]string{
	"POST /users":               {"passwords", "sessions", "sessions refreshed"},
	"DELETE /users/{id}":        {"sessions", "sessions refreshed", "sessions revoked", "keys revoked", "passwords"},
	"PUT /users/{id}/password":  {"sessions revoked", "keys revoked"},
	"POST /products":            {"units"},
	"POST /products/{id}/stock": {"units"},
	"POST /orders":              {"lines", "units", "stocks changed"},
	"POST /orders/{id}/cancel":  {"units", "stocks changed"},
	"POST /orders/{id}/refund":  {"units", "stocks changed"},
}

// creates are the operations that add a new object each time they succeed.
var creates = map[string]string{"POST /users": "users", "POST /products": "products", "POST /orders": "orders", "POST /auth/sign-in": "sessions"}

// checkEffect returns what is wrong with the changes that came with an answer: an error must come
// with none, a success with one.
func checkEffect(op described, req *request, a *harness.RESTAnswer, changed state) error {
	changed = maps.Clone(changed)
	switch {
	case op.name == "POST /auth/refresh" && a.Status >= 400:
		delete(changed, "sessions revoked") // a refresh token that is used twice ends its session
		fallthrough
	case op.method == "GET" || a.Status >= 400 || req.misdirected:
		if len(changed) > 0 {
			return fmt.Errorf("%d came with changes: %v", a.Status, changed)
		}
		return nil
	}
	if kind := creates[op.name]; kind != "" && changed[kind] != 1 && (!req.repeat || changed[kind] != 0) {
		return fmt.Errorf("a success added %d %s", changed[kind], kind)
	}
	if by, ok := harness.At(req.value, "by").(int); ok && op.name == "POST /products/{id}/stock" && changed["units"] != int64(by) && (!req.repeat || changed["units"] != 0) {
		return fmt.Errorf("%d units more made %d", by, changed["units"])
	}
	for _, name := range append(follows[op.name], "events") {
		delete(changed, name)
	}
	if n := changed["idempotency keys"]; n != 0 && (n != 1 || req.header.Get("Idempotency-Key") == "") {
		return fmt.Errorf("a success added %d idempotency keys", n)
	}
	delete(changed, "idempotency keys")
	for name, n := range changed {
		if n < 0 || n > oneEffect[op.name][name] {
			return fmt.Errorf("a success changed too much: %s by %d", name, n)
		}
	}
	return nil
}
