package attack

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// maxTries is more than a caller may write at once under the settings of these tests, though the machine is slow.
const maxTries = 2000

// orderWriters place an order over one transport and return the code of its error, empty if it was placed.
var orderWriters = map[string]func(ctx context.Context, t *testing.T, c harness.Caller) string{
	"GraphQL": func(ctx context.Context, t *testing.T, c harness.Caller) string {
		t.Helper()
		a, err := c.Send(ctx, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("P0", 1)}})
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Errors) == 0 {
			return ""
		}
		if wait, _ := a.Errors[0].Extensions["retryAfter"].(float64); a.Status != http.StatusTooManyRequests || wait < 1 || a.Data != nil {
			t.Errorf("the refusal is %+v, want status 429, retryAfter and no data", a)
		}
		return fmt.Sprint(a.Errors[0].Extensions["code"])
	},
	"REST": func(ctx context.Context, t *testing.T, c harness.Caller) string {
		t.Helper()
		a, err := c.REST(ctx, "POST /orders", `{"items": [{"sku": "P0", "quantity": 1}]}`, "Content-Type", "application/json")
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == http.StatusCreated {
			return ""
		}
		if a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			t.Errorf("the refusal is %d with Retry-After %q: %s", a.Status, a.Header.Get("Retry-After"), a.Body)
		}
		return harness.Text(a.JSON(t), "code")
	},
	"socket":       writeOverStream("socket"),
	"event stream": writeOverStream("event stream"),
}

func writeOverStream(transport string) func(ctx context.Context, t *testing.T, c harness.Caller) string {
	return func(ctx context.Context, t *testing.T, c harness.Caller) string {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := harness.Transports[transport](ctx, c, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("P0", 1)}})
		if err != nil {
			t.Fatal(err)
		}
		return harness.MustNext(t, s).Code
	}
}

// TestUser_cannot_write_faster_than_its_rate places orders over each transport until the rate refuses one. All share the one rate, a
// refused order is not placed, and others write on.
func TestUser_cannot_write_faster_than_its_rate(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_RATE_LIMIT=on", "BACKPLANE_LIMIT_USER_WRITES=2")
		root := harness.SignInAdmin(t, p)
		harness.CreateProduct(t, root, "P0", 1_000_000)
		mallory, ada := harness.SignUp(t, p, "mallory"), harness.SignUp(t, p, "ada")
		placed := 0
		for transport, place := range orderWriters {
			refused := false
			for range maxTries {
				code := place(t.Context(), t, mallory)
				if code == "" {
					placed++
					continue
				}
				if refused = code == "RATE_LIMITED"; !refused {
					t.Fatalf("over %s an order gave %s", transport, code)
				}
				break
			}
			if !refused {
				t.Errorf("over %s %d orders at once were placed", transport, maxTries)
			}
		}
		got := harness.Number(mallory.Do(t, `{ viewer { orders { totalCount } } }`, nil), "viewer", "orders", "totalCount")
		if got != placed {
			t.Errorf("there are %d orders, %d calls were answered with one", got, placed)
		}
		if code := orderWriters["GraphQL"](t.Context(), t, ada); code != "" {
			t.Errorf("another customer got %s", code)
		}
	})
}

// TestAddress_cannot_write_faster_by_more_accounts places orders of several accounts of one address in turn, over each transport.
func TestAddress_cannot_write_faster_by_more_accounts(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_RATE_LIMIT=on", "BACKPLANE_LIMIT_ADDRESS_WRITES=2")
		root := harness.SignInAdmin(t, p)
		harness.CreateProduct(t, root, "P0", 1_000_000)
		accounts := []harness.Caller{harness.SignUp(t, p, "mallory"), harness.SignUp(t, p, "mallory2"), harness.SignUp(t, p, "mallory3")}
		for transport, place := range orderWriters {
			refused := false
			for n := 0; n < maxTries && !refused; n++ {
				code := place(t.Context(), t, accounts[n%len(accounts)])
				if refused = code == "RATE_LIMITED"; !refused && code != "" {
					t.Fatalf("over %s an order gave %s", transport, code)
				}
			}
			if !refused {
				t.Errorf("over %s %d orders at once were placed", transport, maxTries)
			}
		}
		harness.CreateProduct(t, root, "P1", 1) // staff share no rate with the customers of their address
	})
}

// TestUser_cannot_write_faster_by_repeats repeats one order under its idempotency key, and sends many mutations in one document.
func TestUser_cannot_write_faster_by_repeats(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_RATE_LIMIT=on", "BACKPLANE_LIMIT_USER_WRITES=2")
		root := harness.SignInAdmin(t, p)
		harness.CreateProduct(t, root, "P0", 1_000_000)
		for name, write := range map[string]struct {
			query string
			vars  harness.Fields
		}{
			"repeats": {harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("P0", 1)}, "key": "same"}},
			"many mutations in a fragment": {`mutation { ...m } fragment m on Mutation {
				a: createStreamTicket(input: {query: "{ no }"}) { userErrors { code } } b: createStreamTicket(input: {query: "{ no }"}) { userErrors { code } } }`, nil},
		} {
			c := harness.SignUp(t, p, name)
			refused := false
			for range maxTries {
				a, err := c.Send(t.Context(), write.query, write.vars)
				if err != nil {
					t.Fatal(err)
				}
				if refused = a.Status == http.StatusTooManyRequests; refused {
					break
				}
			}
			if !refused {
				t.Errorf("%s: none of %d was refused", name, maxTries)
			}
		}
	})
}

// TestService_renews_and_picks_without_a_rate calls what instances call all the time, more often than a second's worth of writes.
func TestService_renews_and_picks_without_a_rate(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_RATE_LIMIT=on", "BACKPLANE_LIMIT_USER_WRITES=1")
		root := harness.SignInAdmin(t, p)
		harness.CreateService(t, root, "echo", "1m", 1)
		harness.CreateUserWithRole(t, p, root, "robot", "SERVICE")
		robot := harness.WithAPIKey(t, root, "robot", "service:echo")
		for range 100 { // the bucket of SERVICE has 40
			robot.Do(t, harness.RenewInstance, harness.Input(harness.Fields{"service": "echo", "instanceId": "i0", "incarnation": 1}))
			lease := harness.Text(robot.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})), "pickInstance", "lease")
			robot.Do(t, harness.ReportOutcome, harness.Input(harness.Fields{"lease": lease, "ok": true}))
		}
	})
}
