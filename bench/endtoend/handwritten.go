package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// outbox is where the hand-written handlers record changes: one row for each, with no index but its
// primary key.
const outbox = `CREATE TABLE IF NOT EXISTS outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, type text NOT NULL, subject_id text NOT NULL, data json NOT NULL, at timestamptz NOT NULL DEFAULT now())`

// handwritten has handlers as one would write them for these few requests alone.
type handwritten struct{ pool *pgxpool.Pool }

func (h *handwritten) register(mux *http.ServeMux) {
	for pattern, fn := range map[string]func(*http.Request) (any, error){
		"GET /user":       h.user,
		"GET /orders":     h.orders,
		"GET /nested":     h.nested,
		"POST /order":     h.place,
		"GET /users/{id}": h.restUser,
		"GET /users":      h.restUsers,
		"POST /users":     h.restCreate,
	} {
		status := http.StatusOK
		if pattern == "POST /users" {
			status = http.StatusCreated
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := fn(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			body, err := json.Marshal(v)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			writeJSON(w, status, body)
		})
	}
}

type data struct {
	Data any `json:"data"`
}

type userRow struct {
	ID       string  `json:"id"`
	Username string  `json:"username"`
	Name     string  `json:"name"`
	Email    *string `json:"email"`
}

func (h *handwritten) user(r *http.Request) (any, error) {
	var u userRow
	err := h.pool.QueryRow(r.Context(), `SELECT id, username, name, email FROM users WHERE id = $1`, r.URL.Query().Get("id")).
		Scan(&u.ID, &u.Username, &u.Name, &u.Email)
	return data{map[string]any{"user": u}}, err
}

type amount struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}

func euros(minor int64, currency string) amount {
	return amount{fmt.Sprintf("%d.%02d", minor/100, minor%100), currency}
}

type item struct {
	SKU      string `json:"sku"`
	Name     string `json:"name"`
	Quantity int    `json:"quantity"`
	Total    amount `json:"total"`
}

type customer struct {
	ID       string `json:"id"`
	Username string `json:"username"`
	Name     string `json:"name"`
}

type orderRow struct {
	ID        string    `json:"id"`
	Number    string    `json:"number"`
	Status    string    `json:"status"`
	ItemCount int       `json:"itemCount"`
	Total     amount    `json:"total"`
	Items     []item    `json:"items"`
	User      *customer `json:"user,omitempty"`
	userID    string
}

type nodes struct {
	Nodes []*orderRow `json:"nodes"`
}

// readOrders reads orders with their lines, in two round trips.
func (h *handwritten) readOrders(ctx context.Context, query string, args ...any) ([]*orderRow, error) {
	rows, err := h.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	orders, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*orderRow, error) {
		o, minor, currency := &orderRow{}, int64(0), ""
		err := row.Scan(&o.ID, &o.Number, &o.Status, &o.ItemCount, &minor, &currency, &o.userID)
		o.Total = euros(minor, currency)
		return o, err
	})
	if err != nil || len(orders) == 0 {
		return orders, err
	}
	byID, ids := make(map[string]*orderRow, len(orders)), make([]string, 0, len(orders))
	for _, o := range orders {
		byID[o.ID] = o
		ids = append(ids, o.ID)
	}
	rows, err = h.pool.Query(ctx, `SELECT order_id, sku, name, quantity, total_minor, currency FROM order_items WHERE order_id = ANY($1) ORDER BY order_id, line`, ids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id, currency string
		var minor int64
		var it item
		if err := rows.Scan(&id, &it.SKU, &it.Name, &it.Quantity, &minor, &currency); err != nil {
			return nil, err
		}
		it.Total = euros(minor, currency)
		byID[id].Items = append(byID[id].Items, it)
	}
	return orders, rows.Err()
}

const orderColumns = `SELECT id, number, status, item_count, total_minor, currency, user_id FROM orders `

func (h *handwritten) orders(r *http.Request) (any, error) {
	before, err := time.Parse(time.RFC3339, r.URL.Query().Get("before"))
	if err != nil {
		return nil, err
	}
	orders, err := h.readOrders(r.Context(), orderColumns+`WHERE placed_at < $1 ORDER BY placed_at DESC, id DESC LIMIT 50`, before)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, o := range orders {
		ids = append(ids, o.userID)
	}
	rows, err := h.pool.Query(r.Context(), `SELECT id, username, name FROM users WHERE id = ANY($1)`, ids)
	if err != nil {
		return nil, err
	}
	users, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[customer])
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*customer, len(users))
	for _, u := range users {
		byID[u.ID] = u
	}
	for _, o := range orders {
		o.User = byID[o.userID]
	}
	return data{map[string]any{"orders": nodes{orders}}}, nil
}

type nestedUser struct {
	customer

	Orders nodes `json:"orders"`
}

func (h *handwritten) nested(r *http.Request) (any, error) {
	var u nestedUser
	err := h.pool.QueryRow(r.Context(), `SELECT id, username, name FROM users WHERE id = $1`, r.URL.Query().Get("id")).Scan(&u.ID, &u.Username, &u.Name)
	if err != nil {
		return nil, err
	}
	u.Orders.Nodes, err = h.readOrders(r.Context(), orderColumns+`WHERE user_id = $1 ORDER BY placed_at DESC, id DESC LIMIT 10`, u.ID)
	return data{map[string]any{"user": u}}, err
}

type offer struct {
	id, sku, name string
	price         int64
	currency      string
	active        bool
	stock         int
	wanted        int
}

var errRefused = errors.New("the order is refused")

// place places an order in one transaction of two round trips: what it reads under locks, then what it
// writes, with the commit.
func (h *handwritten) place(r *http.Request) (any, error) {
	var in orderInput
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	ctx := r.Context()
	conn, err := h.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	offers, err := readOffers(ctx, conn, in)
	if err != nil {
		_, _ = conn.Exec(ctx, `ROLLBACK`) // the transaction may have ended
		return nil, err
	}
	id, number := "ord_"+strings.ToLower(rand.Text()), rand.Text()[:11]
	var total int64
	var ids, skus, names, currencies []string
	var lines, quantities []int
	var prices, totals []int64
	for i, o := range offers {
		total += o.price * int64(o.wanted)
		lines, ids, skus, names = append(lines, i+1), append(ids, o.id), append(skus, o.sku), append(names, o.name)
		quantities, prices, totals, currencies = append(quantities, o.wanted), append(prices, o.price), append(totals, o.price*int64(o.wanted)), append(currencies, o.currency)
	}
	b := &pgx.Batch{}
	b.Queue(`UPDATE stocks SET quantity = quantity - w.n, version = version + 1, updated_at = now() FROM unnest($1::text[], $2::int[]) AS w(id, n) WHERE product_id = w.id`, ids, quantities)
	b.Queue(`INSERT INTO orders (id, number, user_id, status, total_minor, currency, item_count, note, stock_returned, placed_at, version, created_at, updated_at)
		VALUES ($1, $2, $3, 'PENDING', $4, $5, $6, '', false, now(), 1, now(), now())`, id, number, in.UserID, total, currencies[0], len(lines))
	b.Queue(`INSERT INTO order_items (order_id, line, product_id, sku, name, quantity, unit_price_minor, total_minor, currency)
		SELECT $1, * FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[], $8::bigint[], $9::text[])`, id, lines, ids, skus, names, quantities, prices, totals, currencies)
	b.Queue(`INSERT INTO outbox (type, subject_id, data) VALUES ('order.placed', $1, $2)`, id, map[string]any{"number": number, "status": "PENDING", "total": total})
	b.Queue(`COMMIT`)
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		_, _ = conn.Exec(ctx, `ROLLBACK`) // as above
		return nil, err
	}
	return data{map[string]any{"placeOrder": map[string]any{
		"order": map[string]any{"id": id, "number": number, "total": euros(total, currencies[0])}, "userErrors": []any{},
	}}}, nil
}

// readOffers begins the transaction and reads what is ordered, locked in the order of ids.
func readOffers(ctx context.Context, conn *pgxpool.Conn, in orderInput) (offers []offer, err error) {
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(`SELECT status FROM users WHERE id = $1 FOR SHARE`, in.UserID)
	var skus []string
	for _, line := range in.Items {
		skus = append(skus, line.SKU)
	}
	b.Queue(`SELECT p.id, p.sku, p.name, p.price_minor, p.currency, p.active, s.quantity FROM products p JOIN stocks s ON s.product_id = p.id
		WHERE p.sku = ANY($1) ORDER BY s.product_id FOR UPDATE OF s`, skus)
	results := conn.SendBatch(ctx, b)
	defer func() { err = errors.Join(err, results.Close()) }()
	if _, err := results.Exec(); err != nil {
		return nil, err
	}
	var status string
	if err := results.QueryRow().Scan(&status); err != nil {
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	offers, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o offer, err error) {
		return o, row.Scan(&o.id, &o.sku, &o.name, &o.price, &o.currency, &o.active, &o.stock)
	})
	if err != nil || status != "ACTIVE" || len(offers) != len(in.Items) {
		return nil, errors.Join(err, errRefused)
	}
	for i := range offers {
		o := &offers[i]
		o.wanted = in.Items[slices.IndexFunc(in.Items, func(l orderLine) bool { return l.SKU == o.sku })].Quantity
		if !o.active || o.stock < o.wanted || o.currency != offers[0].currency {
			return nil, errRefused
		}
	}
	return offers, nil
}

type restUser struct {
	ID       string  `json:"id"`
	Username string  `json:"username"`
	Email    *string `json:"email"`
}

func (h *handwritten) restUser(r *http.Request) (any, error) {
	var u restUser
	err := h.pool.QueryRow(r.Context(), `SELECT id, username, email FROM users WHERE id = $1 AND status <> 'DELETED'`, r.PathValue("id")).Scan(&u.ID, &u.Username, &u.Email)
	return u, err
}

func (h *handwritten) restUsers(r *http.Request) (any, error) {
	rows, err := h.pool.Query(r.Context(), `SELECT id, username, email FROM users WHERE status = 'ACTIVE' ORDER BY created_at DESC, id DESC LIMIT $1`, 50)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[restUser])
}

func (h *handwritten) restCreate(r *http.Request) (any, error) {
	var in struct{ Username string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	ctx, id, key := r.Context(), "usr_"+strings.ToLower(rand.Text()), strings.ToLower(in.Username)
	b := &pgx.Batch{} // one implicit transaction
	b.Queue(`INSERT INTO users (id, username, username_key, username_sort, name, roles, admin, status, version, created_at, updated_at)
		VALUES ($1, $2, $3, $3, '', 'CUSTOMER', false, 'ACTIVE', 1, now(), now())`, id, in.Username, key)
	b.Queue(`INSERT INTO outbox (type, subject_id, data) VALUES ('user.created', $1, $2)`, id, map[string]any{"username": in.Username})
	if err := h.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, err
	}
	return struct {
		restUser

		Message string `json:"message"`
	}{restUser{id, in.Username, nil}, "User created"}, nil
}
