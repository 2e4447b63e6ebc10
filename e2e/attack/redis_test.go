package attack

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestServer_takes_nothing_from_an_attacker_in_Redis changes the price of a product and the owner
// of an order in Redis, and publishes notifications of events that do not exist.
func TestServer_takes_nothing_from_an_attacker_in_Redis(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		url := testenv.Redis(t)
		opts, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(opts)
		defer client.Close()
		p := harness.StartServer(t, database, "BACKPLANE_REDIS_URL="+url, "BACKPLANE_CACHE_BYTES=1") // without room in process memory, each read is one of Redis
		root, ada, thief := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "thief")
		product := harness.CreateProduct(t, root, "CUP", 9)
		order := harness.Text(ada.Do(t, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("CUP", 1)}}), "placeOrder", "order", "id")
		const read = `query($order: ID!, $product: ID!) { order(id: $order) { total { amount } } product(id: $product) { name price { amount } } }`
		rows := harness.Fields{"order": order, "product": product}
		adaID, thiefID := ada.UserID(t), thief.UserID(t)

		version, forged := regexp.MustCompile(`^v\d+`), map[string]string{}
		harness.Eventually(t, "Redis holds the rows", func() bool {
			ada.Do(t, read, rows)
			for _, key := range client.Keys(t.Context(), "bp2:*").Val() {
				text := client.Get(t.Context(), key).Val()
				if strings.HasPrefix(text, "v") && (strings.HasSuffix(key, order) || strings.HasSuffix(key, product)) {
					text = version.ReplaceAllString(text, "v999")
					forged[key] = strings.NewReplacer(adaID, thiefID, "1250", "1", `"Version":1,`, `"Version":999,`).Replace(text)
				}
			}
			return len(forged) >= 2
		})
		for key, text := range forged {
			if err := client.Set(t.Context(), key, text, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, notification := range []string{"1", "9999999", "9223372036854775807w", "-1", "garbage", `{"type":"order.refunded"}`} {
			if err := client.Publish(t.Context(), "backplane_events", notification).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if got := thief.Do(t, read, rows); harness.At(got, "order") != nil || harness.Text(got, "product", "price", "amount") != "12.50" {
			t.Errorf("with an owner and a price of an intruder the thief reads %v", got)
		}
		thief.MustREST(t, http.StatusNotFound, "GET /orders/"+order, "")
		if got := ada.Do(t, read, rows); harness.Text(got, "order", "total", "amount") != "12.50" || harness.Text(got, "product", "price", "amount") != "12.50" {
			t.Errorf("with an owner and a price of an intruder the owner reads %v", got)
		}
		for key, text := range forged {
			harness.Eventually(t, "a fill replaces "+key, func() bool {
				ada.Do(t, read, rows)
				return client.Get(t.Context(), key).Val() != text && client.TTL(t.Context(), key).Val() != -1
			})
		}
		ada.Do(t, `mutation($in: CancelOrderInput!) { cancelOrder(input: $in) { order { id } userErrors { code } } }`, harness.Input(harness.Fields{"id": order}))
		harness.Eventually(t, "the next event is delivered", func() bool {
			got := ada.Do(t, `query($order: ID!) { order(id: $order) { status } }`, harness.Fields{"order": order})
			return harness.Text(got, "order", "status") == "CANCELLED"
		})
		if !strings.Contains(p.Logs(), "was not written by this installation") {
			t.Error("the forged values were not logged")
		}
	})
}
