package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// lampStock is how many lamps there are. A lamp costs EUR 40.20, which the payment service declines.
const lampStock = 5

// order is an order as the shop shows it.
type order struct {
	ID, Number, Status string
	Total              struct{ Amount, Currency string }
	Payment            struct {
		Status, Failure string
		Attempts        []attempt
	}
}

// attempt is one call of a payment service, or one message from it.
type attempt struct{ Instance, Outcome string }

// shop calls the API of the server.
type shop struct {
	url             string
	admin, customer string // their tokens
}

// call runs a GraphQL operation, and decodes its data. The result of a mutation has userErrors.
func (s *shop) call(ctx context.Context, token, query string, variables map[string]any, data any) error {
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/graphql", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Data   json.RawMessage
		Errors []struct{ Message string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if len(answer.Errors) > 0 {
		return errors.New(answer.Errors[0].Message)
	}
	var payloads map[string]struct{ UserErrors []struct{ Message string } }
	if json.Unmarshal(answer.Data, &payloads) == nil { // else it is no mutation
		for _, p := range payloads {
			if len(p.UserErrors) > 0 {
				return errors.New(p.UserErrors[0].Message)
			}
		}
	}
	return json.Unmarshal(answer.Data, data)
}

// prepare signs in, and makes the products, a customer, the service that takes payments, and a key for it.
func (s *shop) prepare(ctx context.Context, password string) (serviceKey string, err error) {
	var in struct {
		SignIn, SignUp struct{ Session struct{ AccessToken string } }
	}
	const session = `{ session { accessToken } userErrors { message } }`
	if err := s.call(ctx, "", `mutation($p: String!) { signIn(input: {login: "admin", password: $p}) `+session+` }`, map[string]any{"p": password}, &in); err != nil {
		return "", err
	}
	if err := s.call(ctx, "", `mutation($p: String!) { signUp(input: {username: "mia", password: $p}) `+session+` }`, map[string]any{"p": password}, &in); err != nil {
		return "", err
	}
	s.admin, s.customer = in.SignIn.Session.AccessToken, in.SignUp.Session.AccessToken
	var made struct {
		RegisterService struct{ Service struct{ ID string } }
		CreateUser      struct{ User struct{ ID string } }
		CreateAPIKey    struct{ Secret string } `json:"createApiKey"`
	}
	if err := s.call(ctx, s.admin, `mutation($p: String!, $stock: Int!) {
		mug: createProduct(input: {sku: "mug", name: "Mug", price: {amount: "12.50", currency: "EUR"}, stock: 1000}) { userErrors { message } }
		lamp: createProduct(input: {sku: "lamp", name: "Lamp", price: {amount: "40.20", currency: "EUR"}, stock: $stock}) { userErrors { message } }
		registerService(input: {name: "payment-service"}) { service { id } userErrors { message } }
		createUser(input: {username: "till", password: $p, roles: [SERVICE]}) { user { id } userErrors { message } }
	}`, map[string]any{"p": password, "stock": lampStock}, &made); err != nil {
		return "", err
	}
	err = s.call(ctx, s.admin, `mutation($service: ID!, $user: ID!) {
		updateService(input: {id: $service, paymentProvider: true}) { userErrors { message } }
		createApiKey(input: {name: "till", userId: $user, scopes: ["service:payment-service"]}) { secret userErrors { message } }
	}`, map[string]any{"service": made.RegisterService.Service.ID, "user": made.CreateUser.User.ID}, &made)
	return made.CreateAPIKey.Secret, err
}

func (s *shop) placeOrder(ctx context.Context, sku string, quantity int) (id string, err error) {
	var out struct{ PlaceOrder struct{ Order order } }
	err = s.call(ctx, s.customer, `mutation($sku: String!, $n: Int!) { placeOrder(input: {items: [{sku: $sku, quantity: $n}]}) { order { id } userErrors { message } } }`,
		map[string]any{"sku": sku, "n": quantity}, &out)
	return out.PlaceOrder.Order.ID, err
}

// awaitOrder waits until the order has the status.
func (s *shop) awaitOrder(ctx context.Context, id, status string) (order, error) {
	for {
		var out struct{ Order order }
		err := s.call(ctx, s.admin, `query($id: ID!) { order(id: $id) { id number status total { amount currency } payment { status failure attempts { instance outcome } } } }`, map[string]any{"id": id}, &out)
		if err != nil || out.Order.Status == status {
			return out.Order, err
		}
		select {
		case <-ctx.Done():
			return out.Order, fmt.Errorf("order %s is %s and its payment %s, want %s", out.Order.Number, out.Order.Status, out.Order.Payment.Status, status)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *shop) stock(ctx context.Context, sku string) (int, error) {
	var out struct{ ProductBySku struct{ Stock int } }
	err := s.call(ctx, s.customer, `query($sku: String!) { productBySku(sku: $sku) { stock } }`, map[string]any{"sku": sku}, &out)
	return out.ProductBySku.Stock, err
}

func (s *shop) refundOrder(ctx context.Context, id string) error {
	return s.call(ctx, s.admin, `mutation($id: ID!) { refundOrder(input: {id: $id, reason: "broken"}) { userErrors { message } } }`, map[string]any{"id": id}, &struct{}{})
}

// earned returns the cents of the orders that are paid. Prices have two digits behind the point.
func (s *shop) earned(ctx context.Context) (cents int64, err error) {
	for after := ""; ; {
		var out struct {
			Orders struct {
				Nodes    []order
				PageInfo struct {
					HasNextPage bool
					EndCursor   string
				}
			}
		}
		vars := map[string]any{}
		if after != "" {
			vars["after"] = after
		}
		if err := s.call(ctx, s.admin, `query($after: String) { orders(first: 100, after: $after, filter: {status: [PAID]}) { nodes { total { amount } } pageInfo { hasNextPage endCursor } } }`, vars, &out); err != nil {
			return 0, err
		}
		for _, o := range out.Orders.Nodes {
			var whole, part int64
			if _, err := fmt.Sscanf(o.Total.Amount, "%d.%02d", &whole, &part); err != nil {
				return 0, err
			}
			cents += 100*whole + part
		}
		if !out.Orders.PageInfo.HasNextPage {
			return cents, nil
		}
		after = out.Orders.PageInfo.EndCursor
	}
}

// chargedIn returns the cents and the number of payments in the database of the payment services, refunds taken off.
func chargedIn(ctx context.Context, file string) (cents int64, payments int, err error) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT (SELECT coalesce(sum(minor_units), 0) FROM payments WHERE status = 'SUCCEEDED') - (SELECT coalesce(sum(minor_units), 0) FROM refunds WHERE status = 'SUCCEEDED'),
		(SELECT count(*) FROM payments WHERE status = 'SUCCEEDED')`).Scan(&cents, &payments)
	return cents, payments, err
}
