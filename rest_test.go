package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// restAnswer is what a route answered.
type restAnswer struct {
	status int
	header http.Header
	body   []byte
}

// json returns the body decoded.
func (a *restAnswer) json(t *testing.T) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("the answer is no JSON: %v: %s", err, a.body)
	}
	return v
}

// rest calls a route: line is method and path, header pairs of names and values.
func (c caller) rest(ctx context.Context, line, body string, header ...string) (*restAnswer, error) {
	method, path, _ := strings.Cut(line, " ")
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return &restAnswer{resp.StatusCode, resp.Header, text}, err
}

// mustREST is rest for calls that must be answered with the status.
func (c caller) mustREST(t *testing.T, status int, line, body string, header ...string) *restAnswer {
	t.Helper()
	a, err := c.rest(t.Context(), line, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	if a.status != status {
		t.Fatalf("%s %s = %d %s, want %d", line, body, a.status, a.body, status)
	}
	return a
}

func TestREST_and_GraphQL_let_one_of_two_changes_win(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		root := signInAdmin(t, start(t, database))
		root.mustREST(t, http.StatusCreated, "POST /users", `{"id": 5, "username": "ada"}`)
		id := text(root.do(t, `{ users(filter: {legacyId: "5"}) { nodes { id } } }`, nil), "users", "nodes", 0, "id")
		tag := root.mustREST(t, http.StatusOK, "GET /users/5", "").header.Get("ETag")
		var old, typed string // how each of them ended
		var both sync.WaitGroup
		both.Go(func() {
			a, err := root.rest(t.Context(), "PATCH /users/5", `{"email": "rest@example.com"}`, "If-Match", tag)
			if err != nil {
				t.Error(err)
				return
			}
			old = fmt.Sprint(a.status)
			if a.status == http.StatusPreconditionFailed && number(a.json(t), "current_version") != 2 {
				t.Errorf("a change that came too late says %s, want the current version", a.body)
			}
		})
		both.Go(func() {
			a, err := root.send(t.Context(), `mutation($id: ID!) { updateUser(input: {id: $id, ifVersion: 1, email: "graphql@example.com"}) {
				user { version } userErrors { code } } }`, map[string]any{"id": id})
			if err != nil {
				t.Error(err)
				return
			}
			typed = text(a.Data, "updateUser", "userErrors", 0, "code")
			if number(a.Data, "updateUser", "user", "version") != 2 {
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
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		createProduct(t, signInAdmin(t, p), "TEA", 1000)
		ada := signUp(t, p, "ada")
		var mu sync.Mutex
		numbers, refused := map[string]int{}, map[string]int{}
		var calls sync.WaitGroup
		for i := range 200 {
			calls.Go(func() {
				number, problem := ada.placeOnce(t, i%2 == 0)
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
		data := ada.do(t, `{ orders { totalCount } productBySku(sku: "TEA") { stock } }`, nil)
		if number(data, "orders", "totalCount") != 1 || number(data, "productBySku", "stock") != 999 {
			t.Errorf("there are %v, want one order and a stock of 999", data)
		}
	})
}

// placeOnce places the same order under the same key, by REST or GraphQL, and
// returns its number or the code of what went wrong.
func (c caller) placeOnce(t *testing.T, byREST bool) (number, problem string) {
	t.Helper()
	if byREST {
		a, err := c.rest(t.Context(), "POST /orders", `{"items": [{"sku": "TEA", "quantity": 1}]}`, "Idempotency-Key", "the one")
		if err != nil {
			return "", err.Error()
		}
		return text(a.json(t), "number"), text(a.json(t), "code")
	}
	a, err := c.send(t.Context(), `mutation { placeOrder(input: {items: [{sku: "TEA", quantity: 1}], idempotencyKey: "the one"}) {
		order { number } userErrors { code } } }`, nil)
	if err != nil {
		return "", err.Error()
	}
	return text(a.Data, "placeOrder", "order", "number"), text(a.Data, "placeOrder", "userErrors", 0, "code")
}

func TestREST_answers_conditional_requests(t *testing.T) {
	t.Parallel()
	p := start(t, databases["SQLite"](t))
	root := signInAdmin(t, p)
	for i := range 30 {
		root.mustREST(t, http.StatusCreated, "POST /users", fmt.Sprintf(`{"id": %d, "username": "user %d"}`, i+1, i+1))
	}
	plain := root.mustREST(t, http.StatusOK, "GET /users?limit=30", "", "Accept-Encoding", "identity")
	packed := root.mustREST(t, http.StatusOK, "GET /users?limit=30", "", "Accept-Encoding", "gzip")
	tag, other := plain.header.Get("ETag"), packed.header.Get("ETag")
	if packed.header.Get("Content-Encoding") != "gzip" || len(packed.body) >= len(plain.body) || tag == other {
		t.Errorf("the compressed answer has %d of %d bytes and the tag %s beside %s, want another", len(packed.body), len(plain.body), other, tag)
	}
	if a := root.mustREST(t, http.StatusNotModified, "GET /users?limit=30", "", "If-None-Match", "\"x\", W/"+tag, "Accept-Encoding", "identity"); len(a.body) > 0 {
		t.Errorf("304 has the body %s", a.body)
	}
	root.mustREST(t, http.StatusNotModified, "HEAD /users?limit=30", "", "If-None-Match", other, "Accept-Encoding", "gzip")
	root.mustREST(t, http.StatusOK, "GET /users?limit=30", "", "If-None-Match", other, "Accept-Encoding", "identity")
	one := root.mustREST(t, http.StatusOK, "GET /users/7", "").header.Get("ETag")
	version, _, _ := strings.Cut(one, "-")
	root.mustREST(t, http.StatusOK, "GET /users/7", "", "If-None-Match", version+`"`) // the digest counts, too
	head := root.mustREST(t, http.StatusOK, "HEAD /users/7", "")
	if head.header.Get("ETag") != one || len(head.body) > 0 || head.header.Get("Content-Length") == "" {
		t.Errorf("HEAD gave %v with %d bytes, want the headers of GET alone", head.header, len(head.body))
	}
	root.mustREST(t, http.StatusOK, "PATCH /users/7", `{"name": "Seven"}`, "If-Match", "W/"+one)
	if a := root.mustREST(t, http.StatusOK, "GET /users?limit=30", "", "If-None-Match", tag, "Accept-Encoding", "identity"); !strings.Contains(string(a.body), "Seven") {
		t.Errorf("the list does not show a change at once: %s", a.body)
	}
}

func TestREST_serves_programs_of_trusted_networks(t *testing.T) {
	t.Parallel()
	database := databases["SQLite"](t)
	p := start(t, database)
	root := signInAdmin(t, p)
	key, _, _ := strings.Cut(runCommand(t, database, "apikey", "--user", adminName, "--name", "old clients", "--scopes", "users:read,users:write,legacy:write"), "\n")
	trusting := testenv.Server(t, append(settings(database), "BACKPLANE_TRUSTED_NETWORKS=127.0.0.0/8="+key+",10.9.0.0/16="+key)...)
	old := stranger(trusting)
	old.mustREST(t, http.StatusCreated, "POST /users", `{"id": 5, "username": "ada"}`)
	old.mustREST(t, http.StatusOK, "GET /users/5", "")
	old.mustREST(t, http.StatusForbidden, "POST /products", `{"sku": "T", "name": "T", "price": {"amount": "1", "currency": "EUR"}}`)
	for _, header := range []string{"Origin", "Referer", "Sec-Fetch-Site", "Cookie"} { // a browser is no program of the network
		old.mustREST(t, http.StatusUnauthorized, "GET /users/5", "", header, "http://evil.example")
	}
	old.mustREST(t, http.StatusUnauthorized, "GET /users/5", "", "Authorization", "Bearer nonsense")
	if a := old.do(t, `{ viewer { user { id } } }`, nil); at(a, "viewer") != nil {
		t.Errorf("GraphQL took a network for a credential: %v", a)
	}
	stranger(p).mustREST(t, http.StatusUnauthorized, "GET /users/5", "") // without the setting

	behind := testenv.Server(t, append(settings(database), "BACKPLANE_TRUSTED_NETWORKS=127.0.0.0/8="+key+",10.9.0.0/16="+key, "BACKPLANE_TRUSTED_PROXIES=127.0.0.1")...)
	proxied := stranger(behind)
	proxied.mustREST(t, http.StatusUnauthorized, "GET /users/5", "") // a proxy that does not say for whom it speaks
	proxied.mustREST(t, http.StatusUnauthorized, "GET /users/5", "", "X-Forwarded-For", "192.0.2.1")
	proxied.mustREST(t, http.StatusUnauthorized, "GET /users/5", "", "X-Forwarded-For", "10.9.1.1, 192.0.2.1")
	proxied.mustREST(t, http.StatusOK, "GET /users/5", "", "X-Forwarded-For", "192.0.2.1, 10.9.1.1")
	root.mustREST(t, http.StatusOK, "GET /users/5", "")
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
	database := databases["SQLite"](t)
	p := testenv.Server(t, append(settings(database), "BACKPLANE_REST_OPERATIONS="+folder,
		"BACKPLANE_REST_DEPRECATED=* 2026-01-01, GET /me 2026-02-01 2027-02-01 /graphql#me")...)
	root := signInAdmin(t, p)
	me := root.mustREST(t, http.StatusOK, "GET /me", "")
	if got := me.header; got.Get("Deprecation") != "@1769904000" || got.Get("Sunset") != "Mon, 01 Feb 2027 00:00:00 GMT" || got.Get("Link") != `</graphql#me>; rel="successor-version"` {
		t.Errorf("GET /me says %v, want when it goes and what comes", got)
	}
	if got := root.mustREST(t, http.StatusOK, "GET /users?limit=1", "").header; got.Get("Deprecation") != "@1767225600" || got.Get("Sunset") != "" {
		t.Errorf("GET /users says %v, want that it is deprecated", got)
	}
	id := text(me.json(t), "id")
	root.mustREST(t, http.StatusPreconditionRequired, "PATCH /users/"+id, `{"email": "root@example.com"}`)
	root.mustREST(t, http.StatusOK, "PATCH /users/"+id, `{"email": "root@example.com"}`, "If-Match", `"1"`)
	if spec := string(stranger(p).mustREST(t, http.StatusOK, "GET /openapi.json", "").body); !strings.Contains(spec, `"/me"`) || !strings.Contains(spec, `"deprecated": true`) {
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
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root := signInAdmin(t, p)
		cursor := text(root.do(t, `{ eventCursor }`, nil), "eventCursor")
		first := root.stream(t, "/events?type=USER_CREATED", "Last-Event-ID", cursor)
		root.mustREST(t, http.StatusCreated, "POST /users", `{"id": 5, "username": "ada"}`)
		seen := first.next(t)
		first.close()
		if data := seen.data(t); text(data, "type") != "USER_CREATED" || text(data, "data", "username") != "ada" || seen.id != text(data, "cursor") || seen.name != "" {
			t.Errorf("the event is %+v, want that of ada as a plain message under its cursor", seen)
		}
		root.mustREST(t, http.StatusCreated, "POST /users", `{"id": 6, "username": "bob"}`)
		second := root.stream(t, "/events?type=USER_CREATED&after="+cursor, "Last-Event-ID", seen.id)
		if data := second.next(t).data(t); text(data, "data", "username") != "bob" {
			t.Errorf("behind the first event comes %v, want that of bob", data)
		}
		second.close()
		bad := root.mustREST(t, http.StatusUnprocessableEntity, "GET /events", "", "Accept", "text/event-stream", "Last-Event-ID", "nonsense")
		if code := text(bad.json(t), "errors", 0, "pointer"); code != "/Last-Event-ID" {
			t.Errorf("a cursor that is none gave %s", bad.body)
		}
		stranger(p).mustREST(t, http.StatusUnauthorized, "GET /events", "", "Accept", "text/event-stream")
		root.mustREST(t, http.StatusNotAcceptable, "GET /users", "", "Accept", "text/event-stream")
		lost := root.stream(t, "/events", "Last-Event-ID", "000000000000.1")
		if e := lost.next(t); e.name != "problem" || text(e.data(t), "code") != "CURSOR_UNKNOWN" {
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
	return (&restAnswer{body: []byte(e.text)}).json(t)
}

func (c caller) stream(t *testing.T, path string, header ...string) *routeStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := httpClient.Do(req) //nolint:bodyclose // the stream is closed by its reader
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

func TestLegacyUsage_tells_operators_who_calls_routes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		p := start(t, database)
		root, ada := signInAdmin(t, p), signUp(t, p, "ada")
		for range 3 {
			ada.mustREST(t, http.StatusNotFound, "GET /users/5", "", "User-Agent", "shop/1.2")
		}
		key, secondLine, _ := strings.Cut(runCommand(t, database, "apikey", "--user", adminName, "--name", "till", "--scopes", "users:read"), "\n")
		caller{p.BaseURL, key}.mustREST(t, http.StatusOK, "GET /users", "")
		keyID := strings.Fields(secondLine)[4]
		const query = `{ legacyUsage { nodes { route client calls firstSeenAt lastSeenAt } totalCount } }`
		var data map[string]any
		eventually(t, "the calls are stored", func() bool {
			data = root.do(t, query, nil)
			return number(data, "legacyUsage", "totalCount") == 2
		})
		got := fmt.Sprint(at(data, "legacyUsage", "nodes", 0, "client"), at(data, "legacyUsage", "nodes", 0, "calls"), at(data, "legacyUsage", "nodes", 1, "route"),
			at(data, "legacyUsage", "nodes", 1, "client"), at(data, "legacyUsage", "nodes", 1, "calls"))
		if want := fmt.Sprint(keyID, 1, "GET /users/{id}", "shop/1.2", 3); got != want {
			t.Errorf("legacyUsage shows %s, want %s", got, want)
		}
		if a, err := ada.send(t.Context(), query, nil); err != nil || len(a.Errors) != 1 || a.Errors[0].Extensions["code"] != "FORBIDDEN" {
			t.Errorf("legacyUsage for a customer = %+v, %v, want FORBIDDEN", a, err)
		}
		if out := runCommand(t, database, "legacy"); !strings.Contains(out, "GET /users/{id}   shop/1.2") {
			t.Errorf("backplane legacy printed\n%s", out)
		}
	})
}
