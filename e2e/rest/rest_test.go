package rest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestREST_and_GraphQL_let_one_of_two_changes_win(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := harness.SignInAdmin(t, harness.StartServer(t, database))
		root.MustREST(t, http.StatusCreated, "POST /users", `{"id": 5, "username": "ada"}`)
		id := harness.Text(root.Do(t, `{ users(filter: {legacyId: "5"}) { nodes { id } } }`, nil), "users", "nodes", 0, "id")
		tag := root.MustREST(t, http.StatusOK, "GET /users/5", "").Header.Get("ETag")
		var old, typed string // how each of them ended
		var both sync.WaitGroup
		both.Go(func() {
			a, err := root.REST(t.Context(), "PATCH /users/5", `{"email": "rest@example.com"}`, "If-Match", tag)
			if err != nil {
				t.Error(err)
				return
			}
			old = fmt.Sprint(a.Status)
			if a.Status == http.StatusPreconditionFailed && harness.Number(a.JSON(t), "current_version") != 2 {
				t.Errorf("a change that came too late says %s, want the current version", a.Body)
			}
		})
		both.Go(func() {
			a, err := root.Send(t.Context(), `mutation($id: ID!) { updateUser(input: {id: $id, ifVersion: 1, email: "graphql@example.com"}) {
				user { version } userErrors { code } } }`, map[string]any{"id": id})
			if err != nil {
				t.Error(err)
				return
			}
			typed = harness.Text(a.Data, "updateUser", "userErrors", 0, "code")
			if harness.Number(a.Data, "updateUser", "user", "version") != 2 {
				t.Errorf("GraphQL shows %v, want version 2", a.Data)
			}
		})
		both.Wait()
		if got := old + " " + typed; got != "200 VERSION_CONFLICT" && got != "412 " {
			t.Errorf("REST and GraphQL ended with %q, want one of them to win", got)
		}
	})
}

func TestREST_and_GraphQL_make_one_order_under_one_key(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		harness.CreateProduct(t, harness.SignInAdmin(t, p), "TEA", 1000)
		ada := harness.SignUp(t, p, "ada")
		var mu sync.Mutex
		numbers, refused := map[string]int{}, map[string]int{}
		var calls sync.WaitGroup
		for i := range 200 {
			calls.Go(func() {
				number, problem := placeOnce(t, ada, i%2 == 0)
				mu.Lock()
				defer mu.Unlock()
				if problem != "" {
					refused[problem]++
				} else {
					numbers[number]++
				}
			})
		}
		calls.Wait()
		delete(refused, "IDEMPOTENCY_IN_FLIGHT") // "try again with the same key"
		if len(numbers) != 1 || len(refused) > 0 {
			t.Errorf("200 calls under one key made the orders %v and the errors %v, want one order", numbers, refused)
		}
		data := ada.Do(t, `{ orders { totalCount } productBySku(sku: "TEA") { stock } }`, nil)
		if harness.Number(data, "orders", "totalCount") != 1 || harness.Number(data, "productBySku", "stock") != 999 {
			t.Errorf("there are %v, want one order and a stock of 999", data)
		}
	})
}

// placeOnce places the same order under the same key, by REST or GraphQL, and
// returns its number or the code of what went wrong.
func placeOnce(t *testing.T, c harness.Caller, byREST bool) (number, problem string) {
	t.Helper()
	if byREST {
		a, err := c.REST(t.Context(), "POST /orders", `{"items": [{"sku": "TEA", "quantity": 1}]}`, "Idempotency-Key", "the one")
		if err != nil {
			return "", err.Error()
		}
		return harness.Text(a.JSON(t), "number"), harness.Text(a.JSON(t), "code")
	}
	a, err := c.Send(t.Context(), `mutation { placeOrder(input: {items: [{sku: "TEA", quantity: 1}], idempotencyKey: "the one"}) {
		order { number } userErrors { code } } }`, nil)
	if err != nil {
		return "", err.Error()
	}
	return harness.Text(a.Data, "placeOrder", "order", "number"), harness.Text(a.Data, "placeOrder", "userErrors", 0, "code")
}

func TestREST_answers_conditional_requests(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	root := harness.SignInAdmin(t, p)
	for i := range 30 {
		root.MustREST(t, http.StatusCreated, "POST /users", fmt.Sprintf(`{"id": %d, "username": "user %d"}`, i+1, i+1))
	}
	plain := root.MustREST(t, http.StatusOK, "GET /users?limit=30", "", "Accept-Encoding", "identity")
	packed := root.MustREST(t, http.StatusOK, "GET /users?limit=30", "", "Accept-Encoding", "gzip")
	tag, other := plain.Header.Get("ETag"), packed.Header.Get("ETag")
	if packed.Header.Get("Content-Encoding") != "gzip" || len(packed.Body) >= len(plain.Body) || tag == other {
		t.Errorf("the compressed answer has %d of %d bytes and the tag %s beside %s, want another", len(packed.Body), len(plain.Body), other, tag)
	}
	if a := root.MustREST(t, http.StatusNotModified, "GET /users?limit=30", "", "If-None-Match", "\"x\", W/"+tag, "Accept-Encoding", "identity"); len(a.Body) > 0 {
		t.Errorf("304 has the body %s", a.Body)
	}
	root.MustREST(t, http.StatusNotModified, "HEAD /users?limit=30", "", "If-None-Match", other, "Accept-Encoding", "gzip")
	root.MustREST(t, http.StatusOK, "GET /users?limit=30", "", "If-None-Match", other, "Accept-Encoding", "identity")
	one := root.MustREST(t, http.StatusOK, "GET /users/7", "").Header.Get("ETag")
	version, _, _ := strings.Cut(one, "-")
	root.MustREST(t, http.StatusOK, "GET /users/7", "", "If-None-Match", version+`"`) // the digest counts, too
	head := root.MustREST(t, http.StatusOK, "HEAD /users/7", "")
	if head.Header.Get("ETag") != one || len(head.Body) > 0 || head.Header.Get("Content-Length") == "" {
		t.Errorf("HEAD gave %v with %d bytes, want the headers of GET alone", head.Header, len(head.Body))
	}
	root.MustREST(t, http.StatusOK, "PATCH /users/7", `{"name": "Seven"}`, "If-Match", "W/"+one)
	if a := root.MustREST(t, http.StatusOK, "GET /users?limit=30", "", "If-None-Match", tag, "Accept-Encoding", "identity"); !strings.Contains(string(a.Body), "Seven") {
		t.Errorf("the list does not show a change at once: %s", a.Body)
	}
}

func TestREST_serves_programs_of_trusted_networks(t *testing.T) {
	t.Parallel()
	database := harness.Databases["PostgreSQL"](t) // two nodes
	p := harness.StartServer(t, database)
	root := harness.SignInAdmin(t, p)
	key, _, _ := strings.Cut(harness.RunCommand(t, database, "apikey", "--user", harness.AdminName, "--name", "old clients", "--scopes", "users:read,users:write,legacy:write"), "\n")
	trusting := testenv.Server(t, append(harness.Settings(database), "BACKPLANE_TRUSTED_NETWORKS=127.0.0.0/8="+key+",10.9.0.0/16="+key)...)
	old := harness.Anonymous(trusting)
	old.MustREST(t, http.StatusCreated, "POST /users", `{"id": 5, "username": "ada"}`)
	old.MustREST(t, http.StatusOK, "GET /users/5", "")
	old.MustREST(t, http.StatusForbidden, "POST /products", `{"sku": "T", "name": "T", "price": {"amount": "1", "currency": "EUR"}}`)
	for _, header := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Cookie"} { // a browser is no program of the network
		old.MustREST(t, http.StatusUnauthorized, "GET /users/5", "", header, "http://evil.example")
	}
	old.MustREST(t, http.StatusUnauthorized, "GET /users/5", "", "Authorization", "Bearer nonsense")
	if a := old.Do(t, `{ viewer { user { id } } }`, nil); harness.At(a, "viewer") != nil {
		t.Errorf("GraphQL took a network for a credential: %v", a)
	}
	harness.Anonymous(p).MustREST(t, http.StatusUnauthorized, "GET /users/5", "") // without the setting

	behind := testenv.Server(t, append(harness.Settings(database), "BACKPLANE_TRUSTED_NETWORKS=127.0.0.0/8="+key+",10.9.0.0/16="+key, "BACKPLANE_TRUSTED_PROXIES=127.0.0.1")...)
	proxied := harness.Anonymous(behind)
	proxied.MustREST(t, http.StatusUnauthorized, "GET /users/5", "") // a proxy that does not name its client
	proxied.MustREST(t, http.StatusUnauthorized, "GET /users/5", "", "X-Forwarded-For", "192.0.2.1")
	proxied.MustREST(t, http.StatusUnauthorized, "GET /users/5", "", "X-Forwarded-For", "10.9.1.1, 192.0.2.1")
	proxied.MustREST(t, http.StatusOK, "GET /users/5", "", "X-Forwarded-For", "192.0.2.1, 10.9.1.1")
	root.MustREST(t, http.StatusOK, "GET /users/5", "")
}

func TestREST_serves_operations_of_the_operator_and_says_what_is_to_go(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	own := map[string]string{
		"me.graphql": "# Shows who is calling.\nquery Me @rest(method: \"GET\", path: \"/me\", when: SIGNED_IN, unwrap: \"viewer.user\") { viewer { user { id name } } }",
		"careful.graphql": "# Changes a user, if the caller says which version.\n" +
			"mutation ChangeUser($id: ID!, $ifVersion: Int! @from(header: \"If-Match\"), $email: String) @rest(method: \"PATCH\", path: \"/users/{id}\", " +
			"when: SIGNED_IN, unwrap: \"updateUser.user\") { updateUser(input: {id: $id, ifVersion: $ifVersion, email: $email}) { user { id email } } }",
	}
	for name, operation := range own {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(operation), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	database := harness.Databases["SQLite"](t)
	p := testenv.Server(t, append(harness.Settings(database), "BACKPLANE_REST_OPERATIONS="+folder,
		"BACKPLANE_REST_DEPRECATED=* 2026-01-01, GET /me 2026-02-01 2027-02-01 /graphql#me")...)
	root := harness.SignInAdmin(t, p)
	me := root.MustREST(t, http.StatusOK, "GET /me", "")
	if got := me.Header; got.Get("Deprecation") != "@1769904000" || got.Get("Sunset") != "Mon, 01 Feb 2027 00:00:00 GMT" || got.Get("Link") != `</graphql#me>; rel="successor-version"` {
		t.Errorf("GET /me says %v, want when it goes and what comes", got)
	}
	if got := root.MustREST(t, http.StatusOK, "GET /users?limit=1", "").Header; got.Get("Deprecation") != "@1767225600" || got.Get("Sunset") != "" {
		t.Errorf("GET /users says %v, want that it is deprecated", got)
	}
	id := harness.Text(me.JSON(t), "id")
	root.MustREST(t, http.StatusPreconditionRequired, "PATCH /users/"+id, `{"email": "root@example.com"}`)
	root.MustREST(t, http.StatusOK, "PATCH /users/"+id, `{"email": "root@example.com"}`, "If-Match", `"1"`)
	if spec := string(harness.Anonymous(p).MustREST(t, http.StatusOK, "GET /openapi.json", "").Body); !strings.Contains(spec, `"/me"`) || !strings.Contains(spec, `"deprecated": true`) {
		t.Error("the OpenAPI document does not have the operator's route, or does not say that it is deprecated")
	}
	cmd := []byte("query Me @rest(method: \"GET\", path: \"/me\") {\n  viewr { user { id } } }")
	if err := os.WriteFile(filepath.Join(folder, "me.graphql"), cmd, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if out, err := p.Run("serve"); err == nil || !strings.Contains(out, "me.graphql:2: Cannot query field") {
		t.Errorf("a mistake in an operation: %v, %s; want the start to fail with file and line", err, out)
	}
}

func TestREST_streams_events_and_goes_on_after_the_last_one(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		cursor := harness.Text(root.Do(t, `{ eventCursor }`, nil), "eventCursor")
		first := openStream(t, root, "/events?type=USER_CREATED", "Last-Event-ID", cursor)
		root.MustREST(t, http.StatusCreated, "POST /users", `{"id": 5, "username": "ada"}`)
		seen := first.next(t)
		first.close()
		if data := seen.data(t); harness.Text(data, "type") != "USER_CREATED" || harness.Text(data, "data", "username") != "ada" || seen.id != harness.Text(data, "cursor") || seen.name != "" {
			t.Errorf("the event is %+v, want that of ada as a plain message under its cursor", seen)
		}
		root.MustREST(t, http.StatusCreated, "POST /users", `{"id": 6, "username": "bob"}`)
		second := openStream(t, root, "/events?type=USER_CREATED&after="+cursor, "Last-Event-ID", seen.id)
		if data := second.next(t).data(t); harness.Text(data, "data", "username") != "bob" {
			t.Errorf("behind the first event comes %v, want that of bob", data)
		}
		second.close()
		bad := root.MustREST(t, http.StatusUnprocessableEntity, "GET /events", "", "Accept", "text/event-stream", "Last-Event-ID", "nonsense")
		if code := harness.Text(bad.JSON(t), "errors", 0, "pointer"); code != "/Last-Event-ID" {
			t.Errorf("a cursor that is none gave %s", bad.Body)
		}
		harness.Anonymous(p).MustREST(t, http.StatusUnauthorized, "GET /events", "", "Accept", "text/event-stream")
		root.MustREST(t, http.StatusNotAcceptable, "GET /users", "", "Accept", "text/event-stream")
		lost := openStream(t, root, "/events", "Last-Event-ID", "000000000000.1")
		if e := lost.next(t); e.name != "problem" || harness.Text(e.data(t), "code") != "CURSOR_UNKNOWN" {
			t.Errorf("a cursor of elsewhere gave %+v, want a problem", e)
		}
		lost.close()
	})
}

// routeStream is an open event stream of a route.
type routeStream struct {
	lines *bufio.Scanner
	close func()
}

type routeEvent struct{ name, id, text string }

// data returns the data decoded.
func (e routeEvent) data(t *testing.T) any {
	t.Helper()
	return (&harness.RESTAnswer{Body: []byte(e.text)}).JSON(t)
}

func openStream(t *testing.T, c harness.Caller, path string, header ...string) *routeStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.BaseURL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := harness.HTTPClient.Do(req) //nolint:bodyclose // the stream is closed by its reader
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("GET %s = %d as %s, want an event stream", path, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return &routeStream{bufio.NewScanner(resp.Body), func() { cancel(); _ = resp.Body.Close() }}
}

// next waits for an event with data.
func (s *routeStream) next(t *testing.T) (e routeEvent) {
	t.Helper()
	for s.lines.Scan() {
		switch field, value, _ := strings.Cut(s.lines.Text(), ": "); field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.text = value
		case "":
			if e.text != "" {
				return e
			}
		}
	}
	t.Fatalf("the stream ended: %v", s.lines.Err())
	return e
}

// checkLegacyCommand checks what backplane legacy shows of routes and paths, and of days.
func checkLegacyCommand(t *testing.T, database string, ada, anonymous harness.Caller) {
	t.Helper()
	ada.MustREST(t, http.StatusNotFound, "GET /api/v1/carts/17", "", "User-Agent", "shop/1.2")
	ada.MustREST(t, http.StatusMethodNotAllowed, "DELETE /events", "", "User-Agent", "shop/1.2")
	anonymous.MustREST(t, http.StatusNotFound, "GET /wp-login.php", "")
	for _, want := range []string{"GET /users/{id} GetUser shop/1.2 3", "GET /api/v1/carts/{id} (unknown) - shop/1.2 1", "DELETE /events (unknown) - shop/1.2 1", "(unknown path) - (all others) 1"} {
		harness.Eventually(t, want+" is shown", func() bool {
			return strings.Contains(strings.Join(strings.Fields(harness.RunCommand(t, database, "legacy")), " "), want)
		})
	}
	if out := harness.RunCommand(t, database, "legacy", "--json", "--since", "1h"); !strings.Contains(out, `{"route":"GET /users/{id}","graphql":"GetUser","client":"shop/1.2","calls":3,`) {
		t.Errorf("backplane legacy --json printed\n%s", out)
	}
	if out := harness.RunCommand(t, database, "legacy", "--since", "0s"); strings.Contains(out, "GetUser") {
		t.Errorf("backplane legacy --since 0s printed\n%s", out)
	}
	days := harness.RunCommand(t, database, "legacy", "--daily", "--json")
	if !strings.Contains(days, `"route":"GET /users/{id}","graphql":"GetUser","calls":3}`) || !strings.Contains(days, `"route":"(unknown path)","graphql":null,"calls":3}`) {
		t.Errorf("backplane legacy --daily printed\n%s", days)
	}
}

func TestLegacyUsage_tells_operators_who_calls_routes(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada")
		for range 3 {
			ada.MustREST(t, http.StatusNotFound, "GET /users/5", "", "User-Agent", "shop/1.2")
		}
		var key struct{ ID, Secret string }
		if err := json.Unmarshal([]byte(harness.RunCommand(t, database, "apikey", "--json", "--user", harness.AdminName, "--name", "till", "--scopes", "users:read")), &key); err != nil {
			t.Fatal(err)
		}
		harness.Caller{BaseURL: p.BaseURL, Token: key.Secret}.MustREST(t, http.StatusOK, "GET /users", "")
		const query = `{ legacyUsage { nodes { route client calls firstSeenAt lastSeenAt } totalCount } }`
		var data map[string]any
		harness.Eventually(t, "the calls are stored", func() bool {
			data = root.Do(t, query, nil)
			nodes, _ := harness.At(data, "legacyUsage", "nodes").([]any) // totalCount is read after them
			return len(nodes) == 2
		})
		got := fmt.Sprint(harness.At(data, "legacyUsage", "nodes", 0, "client"), harness.At(data, "legacyUsage", "nodes", 0, "calls"), harness.At(data, "legacyUsage", "nodes", 1, "route"),
			harness.At(data, "legacyUsage", "nodes", 1, "client"), harness.At(data, "legacyUsage", "nodes", 1, "calls"))
		if want := fmt.Sprint(key.ID, 1, "GET /users/{id}", "shop/1.2", 3); got != want {
			t.Errorf("legacyUsage shows %s, want %s", got, want)
		}
		if a, err := ada.Send(t.Context(), query, nil); err != nil || len(a.Errors) != 1 || a.Errors[0].Extensions["code"] != "FORBIDDEN" {
			t.Errorf("legacyUsage for a customer = %+v, %v, want FORBIDDEN", a, err)
		}
		checkLegacyCommand(t, database, ada, harness.Anonymous(p))
	})
}
