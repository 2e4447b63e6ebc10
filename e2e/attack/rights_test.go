package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// probe is a mutation for STAFF: it reports the code of its refusal, CLOSED if the connection was closed
// instead, and none if it passed.
type probe func(t *testing.T) string

const privileged = `mutation { adjustStock(input: {productId: "prd_00000000000000000000000000", by: 1}) { userErrors { code } } }`

// refusalCode returns the code of a response that is a refusal; an absent product says that the caller was admitted.
func refusalCode(errors any) string { return harness.Text(errors, 0, "extensions", "code") }

func probeByHTTP(c harness.Caller) probe {
	return func(t *testing.T) string {
		t.Helper()
		return c.RefusalCode(t, privileged, nil)
	}
}

// probeByWebSocket sends the mutation on a WebSocket that is open since before the change.
func probeByWebSocket(t *testing.T, c harness.Caller) probe {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), c.BaseURL+"/graphql", &websocket.DialOptions{Subprotocols: []string{"graphql-transport-ws"}}) //nolint:bodyclose // of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	type frame map[string]any
	exchange := func(ctx context.Context, out frame, until ...string) (in frame, err error) {
		if err := wsjson.Write(ctx, conn, out); err != nil {
			return nil, err
		}
		for {
			in = nil
			if err := wsjson.Read(ctx, conn, &in); err != nil {
				return nil, err
			}
			for _, kind := range until {
				if in["type"] == kind {
					return in, nil
				}
			}
		}
	}
	if _, err := exchange(t.Context(), frame{"type": "connection_init", "payload": frame{"authorization": "Bearer " + c.Token}}, "connection_ack"); err != nil {
		t.Fatal(err)
	}
	n := 0
	return func(t *testing.T) string {
		t.Helper()
		n++
		in, err := exchange(t.Context(), frame{"type": "subscribe", "id": fmt.Sprint(n), "payload": frame{"query": privileged}}, "next", "error")
		switch {
		case err != nil:
			return "CLOSED"
		case in["type"] == "error":
			return refusalCode(in["payload"])
		}
		return refusalCode(harness.At(map[string]any(in), "payload", "errors"))
	}
}

// probeByREST calls a route for STAFF.
func probeByREST(c harness.Caller) probe {
	return func(t *testing.T) string {
		t.Helper()
		a, err := c.REST(t.Context(), "POST /products/prd_00000000000000000000000000/stock", `{"by": 1}`, "Content-Type", "application/json")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(harness.Text(a.JSON(t), "code"), "PRODUCT_NOT_FOUND")
	}
}

// probeByReservedStream starts the mutation on an event stream of many operations that is open since before the change.
func probeByReservedStream(t *testing.T, c harness.Caller) probe {
	t.Helper()
	token := string(c.MustREST(t, http.StatusCreated, "PUT /graphql", "").Body)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.BaseURL+"/graphql?token="+token, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+c.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	n := 0
	return func(t *testing.T) string {
		t.Helper()
		n++
		start, err := json.Marshal(map[string]any{"query": privileged, "extensions": map[string]any{"operationId": fmt.Sprint(n)}})
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.REST(t.Context(), "POST /graphql", string(start), "Content-Type", "application/json", "X-GraphQL-Event-Stream-Token", token)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status != http.StatusAccepted {
			return refusalCode(harness.At(a.JSON(t), "errors"))
		}
		for lines.Scan() {
			var result any
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && json.Unmarshal([]byte(data), &result) == nil && harness.At(result, "payload") != nil && harness.Text(result, "id") == fmt.Sprint(n) {
				return refusalCode(harness.At(result, "payload", "errors"))
			}
		}
		return "CLOSED"
	}
}

func mustPass(t *testing.T, when string, probes map[string]probe) {
	t.Helper()
	for name, p := range probes {
		if code := p(t); code != "" {
			t.Fatalf("%s by %s: %s", when, name, code)
		}
	}
}

func mustRefuse(t *testing.T, when string, probes map[string]probe) {
	t.Helper()
	for name, p := range probes {
		if code := p(t); code == "" {
			t.Errorf("%s by %s: the mutation passed", when, name)
		}
	}
}

// TestServer_ends_rights_with_the_answer takes rights away again and again, and each time sends what needs them
// right after the answer, over every transport.
func TestServer_ends_rights_with_the_answer(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		set := func(user, field string) {
			t.Helper()
			data := root.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, `+field+`}) { userErrors { code } } }`, map[string]any{"id": user})
			if code := harness.Text(data, "updateUser", "userErrors", 0, "code"); code != "" {
				t.Fatalf("updateUser with %s: %s", field, code)
			}
		}
		ada := harness.SignUp(t, p, "ada")
		id := ada.UserID(t)
		set(id, "roles: [STAFF]")
		key := harness.WithAPIKey(t, root, "ada", "products:write")
		probes := map[string]probe{
			"HTTP": probeByHTTP(ada), "an API key": probeByHTTP(key), "a WebSocket": probeByWebSocket(t, ada), "a WebSocket with an API key": probeByWebSocket(t, key),
			"REST": probeByREST(ada), "an event stream": probeByReservedStream(t, ada), "an event stream with an API key": probeByReservedStream(t, key),
		}
		for n := range 30 {
			mustPass(t, "as STAFF", probes)
			set(id, "roles: [CUSTOMER]")
			mustRefuse(t, fmt.Sprintf("after STAFF was taken away the %d. time,", n+1), probes)
			set(id, "roles: [STAFF]")
		}
		for n := range 10 {
			session, revoked := harness.SignIn(t, p, "ada", "a password of mine"), harness.WithAPIKey(t, root, "ada", "products:write")
			probes := map[string]probe{"HTTP": probeByHTTP(session), "REST": probeByREST(session), "a WebSocket": probeByWebSocket(t, session), "an event stream": probeByReservedStream(t, session)}
			keyProbes := map[string]probe{"an API key": probeByHTTP(revoked), "a WebSocket with an API key": probeByWebSocket(t, revoked)}
			mustPass(t, "in a session", probes)
			mustPass(t, "by a key", keyProbes)
			if n%2 == 0 {
				root.Do(t, `mutation($in: RevokeSessionInput!) { revokeSession(input: $in) { userErrors { code } } }`, harness.Input(harness.Fields{"id": sessionIDOf(t, session)}))
			} else {
				session.Do(t, `mutation { signOut(input: {}) { userErrors { code } } }`, nil)
			}
			mustRefuse(t, "after the session ended,", probes)
			root.Do(t, `mutation($in: RevokeApiKeyInput!) { revokeApiKey(input: $in) { userErrors { code } } }`, harness.Input(harness.Fields{"id": "key_" + strings.Split(revoked.Token, "_")[1]}))
			mustRefuse(t, "after the key was revoked,", keyProbes)
		}
		mustPass(t, "before the account is deactivated", probes)
		set(id, "status: DEACTIVATED")
		mustRefuse(t, "after the account was deactivated,", probes)
	})
}

// sessionIDOf returns the id of the caller's own session.
func sessionIDOf(t *testing.T, c harness.Caller) string {
	t.Helper()
	for _, s := range harness.At(c.Do(t, `{ viewer { sessions { id current } } }`, nil), "viewer", "sessions").([]any) {
		if harness.At(s, "current") == true {
			return harness.Text(s, "id")
		}
	}
	t.Fatal("no session is the current one")
	return ""
}

// TestServers_end_rights_on_other_nodes_within_the_bound of a second, which is that of the age of the log that
// a request is admitted by.
func TestServers_end_rights_on_other_nodes_within_the_bound(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	const outbound = "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8"
	first := harness.StartServer(t, database, outbound)
	second := testenv.Server(t, harness.Settings(database, outbound)...)
	root := harness.SignInAdmin(t, first)
	startEndlessService(t, root, "endless")
	ada := harness.CreateUserWithRole(t, first, root, "ada", "STAFF")
	id := ada.UserID(t)
	ada.BaseURL = second.BaseURL
	probes := map[string]probe{"HTTP": probeByHTTP(ada), "a WebSocket": probeByWebSocket(t, ada)}
	follow := harness.Subscribe(t, "event stream", ada, `subscription { serviceEvents { cursor } }`, nil)
	harness.Eventually(t, "the other node knows the service", func() bool {
		return harness.Number(ada.Do(t, `{ service(name: "endless") { instances { totalCount } } }`, nil), "service", "instances", "totalCount") == 1
	})
	calls := map[string]func() error{}
	for name, open := range gatewayStreams {
		calls[name] = open(t, ada)
	}
	mustPass(t, "as STAFF", probes)
	root.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, roles: [CUSTOMER]}) { userErrors { code } } }`, map[string]any{"id": id})
	for name, p := range probes {
		harness.Eventually(t, "the other node refuses "+name, func() bool { return p(t) == "FORBIDDEN" })
	}
	harness.CreateService(t, root, "echo", "5m")
	root.Do(t, `mutation($id: ID!) { updateUser(input: {id: $id, status: DEACTIVATED}) { userErrors { code } } }`, map[string]any{"id": id})
	if m := harness.MustNext(t, follow); m.Event != nil || m.Code != "UNAUTHENTICATED" {
		t.Errorf("the stream of the former STAFF brought %+v, want its end", m)
	}
	for name, next := range calls {
		if !endsWithin(10*time.Second, next) {
			t.Errorf("%s through the gateway of the other node outlives the account", name)
		}
	}
	harness.Eventually(t, "the other node refuses the account", func() bool {
		a, err := ada.Send(t.Context(), `{ viewer { id } }`, nil)
		return err == nil && a.Status == http.StatusUnauthorized
	})
}
