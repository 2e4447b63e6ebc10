package attack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// wrongPassword and wrongLogin are what callers type, and no place may keep.
const (
	wrongPassword = "mistyped horse battery"
	wrongLogin    = "password in the wrong field"
	newPassword   = "another password of mine"
)

// agent is the user agent of the requests whose events a test looks at.
const agent = "auditor/1.0"

const signInMutation = `mutation($in: SignInInput!) { signIn(input: $in) { session { accessToken refreshToken } userErrors { code } } }`

// post sends an operation under a request id, and returns its data.
func post(t *testing.T, c harness.Caller, requestID, query string, in harness.Fields) map[string]any {
	t.Helper()
	a, err := c.Send(t.Context(), query, harness.Input(in), "User-Agent", agent, "X-Request-Id", requestID)
	if err != nil {
		t.Fatal(err)
	}
	return a.Data
}

// eventsOf waits for the security events with the request id, and returns them.
func eventsOf(t *testing.T, p *testenv.Process, requestID string, want int) (found []harness.SecurityEvent) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%d security events of %s are stored", want, requestID), func() bool {
		found = slices.DeleteFunc(harness.SecurityEvents(t, p), func(e harness.SecurityEvent) bool { return e.RequestID != requestID })
		return len(found) >= want
	})
	if len(found) != want {
		t.Errorf("%s has the security events %+v, want %d", requestID, found, want)
	}
	return found
}

// wantEvent checks the one security event of a request.
func wantEvent(t *testing.T, p *testenv.Process, requestID string, want harness.SecurityEvent) harness.SecurityEvent {
	t.Helper()
	got := eventsOf(t, p, requestID, 1)[0]
	want.ID, want.RequestID, want.Count, want.Address, want.UserAgent = got.ID, requestID, 1, "127.0.0.1", agent
	if want.Session == "any" {
		want.Session = got.Session
	}
	if want.Key == "any" {
		want.Key = got.Key
	}
	if got != want {
		t.Errorf("%s is the security event\n%+v, want\n%+v", requestID, got, want)
	}
	return got
}

// TestServer_records_security_events goes through the life of an account and what is refused to it.
func TestServer_records_security_events(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_LOG_FORMAT=json")
		root, anonymous := harness.SignInAdmin(t, p), harness.Anonymous(p)
		secrets := []string{wrongPassword, wrongLogin, newPassword, harness.AdminPassword, root.Token}

		post(t, anonymous, "sign-up", `mutation($in: SignUpInput!) { signUp(input: $in) { user { id } userErrors { code } } }`, harness.Fields{"username": "ada", "password": "a password of mine"})
		ada := harness.SignIn(t, p, "ada", "a password of mine")
		id := ada.UserID(t)
		secrets = append(secrets, "a password of mine", ada.Token)
		wantEvent(t, p, "sign-up", harness.SecurityEvent{Type: "sign_up.succeeded", User: id, Actor: id, Session: "any"})
		tokens := post(t, anonymous, "sign-in", signInMutation, harness.Fields{"login": "ada", "password": "a password of mine"})
		session := wantEvent(t, p, "sign-in", harness.SecurityEvent{Type: "sign_in.succeeded", User: id, Actor: id, Session: "any"}).Session
		post(t, anonymous, "wrong-password", signInMutation, harness.Fields{"login": "ada", "password": wrongPassword})
		wantEvent(t, p, "wrong-password", harness.SecurityEvent{Type: "sign_in.failed", User: id, Detail: "WRONG_PASSWORD"})
		post(t, anonymous, "wrong-login", signInMutation, harness.Fields{"login": wrongLogin, "password": wrongPassword})
		wantEvent(t, p, "wrong-login", harness.SecurityEvent{Type: "sign_in.failed", Detail: "UNKNOWN_LOGIN"})

		const change = `mutation($in: ChangePasswordInput!) { changePassword(input: $in) { user { id } userErrors { code } } }`
		own := harness.Caller{BaseURL: p.BaseURL, Token: harness.Text(tokens, "signIn", "session", "accessToken")}
		secrets = append(secrets, own.Token)
		post(t, own, "wrong-change", change, harness.Fields{"currentPassword": wrongPassword, "newPassword": newPassword})
		wantEvent(t, p, "wrong-change", harness.SecurityEvent{Type: "password.change_failed", User: id, Actor: id, Session: session})
		post(t, own, "change", change, harness.Fields{"currentPassword": "a password of mine", "newPassword": newPassword})
		types := map[string]int{}
		for _, e := range eventsOf(t, p, "change", 3) { // the sessions of signing up and of ada end
			types[e.Type+" "+e.Detail]++
		}
		if types["password.changed "] != 1 || types["session.revoked PASSWORD_CHANGED"] != 2 {
			t.Errorf("a changed password is the security events %v", types)
		}

		refresh := harness.Text(tokens, "signIn", "session", "refreshToken")
		for range 2 {
			next := anonymous.Do(t, `mutation($in: RefreshSessionInput!) { refreshSession(input: $in) { session { refreshToken } userErrors { code } } }`, harness.Input(harness.Fields{"refreshToken": refresh}))
			secrets, refresh = append(secrets, refresh), harness.Text(next, "refreshSession", "session", "refreshToken")
		}
		reuse := harness.Fields{"refreshToken": harness.Text(tokens, "signIn", "session", "refreshToken")}
		post(t, anonymous, "reuse", `mutation($in: RefreshSessionInput!) { refreshSession(input: $in) { userErrors { code } } }`, reuse)
		wantEvent(t, p, "reuse", harness.SecurityEvent{Type: "refresh.reused", User: id, Session: session, Detail: "TOKEN_REUSED"})
		post(t, anonymous, "ended", `mutation($in: RefreshSessionInput!) { refreshSession(input: $in) { userErrors { code } } }`, reuse)
		wantEvent(t, p, "ended", harness.SecurityEvent{Type: "credential.refused", User: id, Session: session, Detail: "REVOKED"})

		post(t, root, "raise", `mutation($in: UpdateUserInput!) { updateUser(input: $in) { user { id } userErrors { code } } }`, harness.Fields{"id": id, "roles": []any{"STAFF"}})
		wantEvent(t, p, "raise", harness.SecurityEvent{Type: "user.roles_changed", User: id, Actor: root.UserID(t), Session: "any", Detail: "STAFF"})
		post(t, root, "close", `mutation($in: UpdateUserInput!) { updateUser(input: $in) { user { id } userErrors { code } } }`, harness.Fields{"id": id, "status": "DEACTIVATED"})
		wantEvent(t, p, "close", harness.SecurityEvent{Type: "user.status_changed", User: id, Actor: root.UserID(t), Session: "any", Detail: "DEACTIVATED"})
		post(t, root, "delete", `mutation($in: DeleteUserInput!) { deleteUser(input: $in) { user { id } userErrors { code } } }`, harness.Fields{"id": id})
		wantEvent(t, p, "delete", harness.SecurityEvent{Type: "user.deleted", User: id, Actor: root.UserID(t), Session: "any"})

		p.Stop()
		wantNoSecret(t, p, database, secrets)
	})
}

// wantNoSecret checks that none of the texts is in the export, the log or, on SQLite, the file of the stopped server.
func wantNoSecret(t *testing.T, p *testenv.Process, database string, secrets []string) {
	t.Helper()
	export, err := p.Run("security", "events")
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{"the export": export, "the log": p.Logs()}
	files, err := filepath.Glob(strings.TrimPrefix(database, "sqlite:") + "*") // with those of the write-ahead log
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		places[file] = string(text)
	}
	for place, text := range places {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %.20q", place, secret)
			}
		}
	}
}

// transports send one operation that needs ADMIN, each with a token and a request id.
var transports = map[string]func(t *testing.T, p *testenv.Process, token, requestID string){
	"GraphQL":                   overHTTP(http.MethodPost, "/graphql", `{"query":"{ a: consumers { name } b: consumers { name } }"}`, "Content-Type", "application/json"),
	"REST":                      overHTTP(http.MethodGet, "/users", ""),
	"REST before the operation": overHTTP(http.MethodPost, "/orders", `{"items":[]}`, "Content-Type", "application/json"), // whose answer the key may not read
	"SSE":                       overHTTP(http.MethodPost, "/graphql", `{"query":"{ consumers { name } }"}`, "Content-Type", "application/json", "Accept", "text/event-stream"),
	"the gateway":               overHTTP(http.MethodGet, "/gateway/echo/", ""),
	"a WebSocket":               overWebSocket,
}

func overHTTP(method, path, body string, header ...string) func(*testing.T, *testenv.Process, string, string) {
	return func(t *testing.T, p *testenv.Process, token, requestID string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, p.BaseURL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		for header := slices.Concat([]string{"X-Request-Id", requestID, "User-Agent", agent}, header); len(header) > 1; header = header[2:] {
			req.Header.Set(header[0], header[1])
		}
		resp, err := harness.HTTPClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body) // a stream that is closed before its end may be refused nothing
	}
}

// overWebSocket sends the token in connection_init.
func overWebSocket(t *testing.T, p *testenv.Process, token, requestID string) {
	t.Helper()
	converse(t, p, requestID,
		map[string]any{"type": "connection_init", "payload": map[string]any{"authorization": "Bearer " + token}},
		map[string]any{"type": "subscribe", "id": "1", "payload": map[string]any{"query": "{ consumers { name } }"}})
}

// converse sends messages over a new socket, and reads an answer to each, until the server closes it.
func converse(t *testing.T, p *testenv.Process, requestID string, messages ...any) {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(p.BaseURL, "http")+"/graphql", &websocket.DialOptions{ //nolint:bodyclose // the socket is the body
		Subprotocols: []string{"graphql-transport-ws"}, HTTPHeader: http.Header{"X-Request-Id": {requestID}, "User-Agent": {agent}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow() //nolint:errcheck // it is closed already
	var answer json.RawMessage
	for _, m := range messages {
		if wsjson.Write(t.Context(), conn, m) != nil || wsjson.Read(t.Context(), conn, &answer) != nil {
			return
		}
	}
}

// TestServer_records_refusals_on_every_transport asks by keys for what they may not do, then by the same keys after they
// were revoked.
func TestServer_records_refusals_on_every_transport(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		ada := harness.SignUp(t, p, "ada")
		id := ada.UserID(t)
		for name, send := range transports {
			made := post(t, ada, "make "+name, `mutation($in: CreateApiKeyInput!) { createApiKey(input: $in) { apiKey { id } secret userErrors { code } } }`,
				harness.Fields{"name": "k", "scopes": []any{"orders:read"}})
			key, text := harness.Text(made, "createApiKey", "apiKey", "id"), harness.Text(made, "createApiKey", "secret")
			request := strings.ReplaceAll(name, " ", "-")
			send(t, p, text, "denied:"+request)
			wantEvent(t, p, "denied:"+request, harness.SecurityEvent{Type: "permission.denied", User: id, Actor: key, Key: key, Detail: "FORBIDDEN"})
			post(t, ada, "revoke:"+request, `mutation($in: RevokeApiKeyInput!) { revokeApiKey(input: $in) { userErrors { code } } }`, harness.Fields{"id": key})
			wantEvent(t, p, "revoke:"+request, harness.SecurityEvent{Type: "api_key.revoked", User: id, Actor: id, Session: "any", Key: key})
			send(t, p, text, "dead:"+request)
			wantEvent(t, p, "dead:"+request, harness.SecurityEvent{Type: "credential.refused", User: id, Key: key, Detail: "REVOKED"})
			if strings.Contains(p.Logs(), text) {
				t.Errorf("the log holds the key that was used over %s", name)
			}
			if line := `user=` + id + ` key=` + key; name != "a WebSocket" && !strings.Contains(p.Logs(), line) {
				t.Errorf("no record of the access log has %s of a request over %s", line, name)
			}
		}
		for name, r := range map[string]struct {
			host, origin string
			want         harness.SecurityEvent
		}{
			"rebinding":    {"evil.example", "", harness.SecurityEvent{Type: "host.refused"}},
			"cross-origin": {"", "https://evil.example", harness.SecurityEvent{Type: "cross_origin.refused"}},
		} {
			header := []string{"Content-Type", "application/json", "X-Request-Id", name, "User-Agent", agent}
			if r.origin != "" {
				header = append(header, "Origin", r.origin)
			}
			browserRequest{"", http.MethodPost, "/graphql", `{"query":"{__typename}"}`, nil}.send(t, p.BaseURL, r.host, header...)
			wantEvent(t, p, name, r.want)
		}
	})
}

// TestServer_records_sign_ins_of_every_transport signs in with a wrong password, then with the right one.
func TestServer_records_sign_ins_of_every_transport(t *testing.T) {
	t.Parallel()
	const operation = `mutation { signIn(input: {login: \"NAME\", password: \"WORD\"}) { session { accessToken } userErrors { code } } }`
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		for name, send := range map[string]func(t *testing.T, word, requestID string){
			"graphql": func(t *testing.T, word, requestID string) {
				t.Helper()
				post(t, harness.Anonymous(p), requestID, signInMutation, harness.Fields{"login": "graphql", "password": word})
			},
			"rest": func(t *testing.T, word, requestID string) {
				t.Helper()
				_, err := harness.Anonymous(p).REST(t.Context(), "POST /auth/sign-in", fmt.Sprintf(`{"login":"rest","password":%q}`, word),
					"Content-Type", "application/json", "X-Request-Id", requestID, "User-Agent", agent)
				if err != nil {
					t.Error(err)
				}
			},
			"socket": func(t *testing.T, word, requestID string) {
				t.Helper()
				query := strings.NewReplacer(`\"`, `"`, "NAME", "socket", "WORD", word).Replace(operation)
				converse(t, p, requestID, map[string]any{"type": "connection_init"}, map[string]any{"type": "subscribe", "id": "1", "payload": map[string]any{"query": query}})
			},
			"stream": func(t *testing.T, word, requestID string) {
				t.Helper()
				query := strings.NewReplacer("NAME", "stream", "WORD", word).Replace(operation)
				overHTTP(http.MethodPost, "/graphql", `{"query":"`+query+`"}`, "Content-Type", "application/json", "Accept", "text/event-stream")(t, p, "", requestID)
			},
		} {
			id := harness.SignUp(t, p, name).UserID(t)
			send(t, wrongPassword, "wrong:"+name)
			wantEvent(t, p, "wrong:"+name, harness.SecurityEvent{Type: "sign_in.failed", User: id, Detail: "WRONG_PASSWORD"})
			send(t, "a password of mine", "right:"+name)
			wantEvent(t, p, "right:"+name, harness.SecurityEvent{Type: "sign_in.succeeded", User: id, Actor: id, Session: "any"})
		}
		harness.SignUp(t, p, "last")
		p.Kill() // what is stored with a change survives
		p.Start()
		if n := len(harness.SecurityEvents(t, p, "--type", "sign_up.succeeded")); n != 5 {
			t.Errorf("%d sign-ups are stored after the server was killed, want 5", n)
		}
	})
}

// TestSecurityEvents_are_for_ADMIN_and_sign_ins_for_their_user reads them over GraphQL.
func TestSecurityEvents_are_for_ADMIN_and_sign_ins_for_their_user(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		ada, bob := harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "bob")
		id := ada.UserID(t)
		for range 3 {
			post(t, harness.Anonymous(p), "guess", signInMutation, harness.Fields{"login": "ada", "password": wrongPassword})
		}
		const list = `query($f: SecurityEventFilter) { securityEvents(first: 100, filter: $f) { nodes { type count user { username } address detail } } }`
		for who, c := range map[string]harness.Caller{"a customer": bob, "an anonymous caller": harness.Anonymous(p), "a key of ADMIN for users": createKey(t, root, "users:read")} {
			if code := c.RefusalCode(t, list, nil); code != "FORBIDDEN" && code != "UNAUTHENTICATED" {
				t.Errorf("securityEvents for %s gave %q", who, code)
			}
		}
		harness.Eventually(t, "the failed sign-ins are listed", func() bool {
			found := createKey(t, root, "users:admin").Do(t, list, map[string]any{"f": harness.Fields{"type": "SIGN_IN_FAILED", "userId": id}})
			return harness.Text(found, "securityEvents", "nodes", 0, "detail") == "WRONG_PASSWORD"
		})
		attempts := func(c harness.Caller) []any {
			return harness.At(c.Do(t, `{ viewer { recentSignIns { outcome at count address userAgent sessionId } } }`, nil), "viewer", "recentSignIns").([]any)
		}
		harness.Eventually(t, "ada sees who tried to sign in", func() bool { return len(attempts(ada)) == 2 })
		if a := attempts(ada); harness.Text(a, 0, "outcome") != "FAILED" || harness.Text(a, 0, "userAgent") != agent || harness.Text(a, 1, "outcome") != "SIGNED_UP" {
			t.Errorf("ada sees the sign-ins %v", a)
		}
		for who, c := range map[string]harness.Caller{"bob": bob, "root": root} {
			for _, a := range attempts(c) {
				if harness.Text(a, "outcome") == "FAILED" {
					t.Errorf("%s sees the attempt %v on the account of ada", who, a)
				}
			}
		}
		p.Stop() // which stores what is counted
		p.Start()
		if a := attempts(ada); len(a) != 3 || harness.Number(a, 0, "count") != 2 {
			t.Errorf("after three wrong guesses ada sees the sign-ins %v", a)
		}
	})
}

// TestUser_is_told_of_new_keys by the events of its account, also if ADMIN makes the key.
func TestUser_is_told_of_new_keys(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada")
		events := harness.Subscribe(t, "socket", ada, `subscription($id: ID!) { userEvents(userId: $id) { type subjectId } }`, map[string]any{"id": ada.UserID(t)})
		ada.Do(t, `{ viewer { user { id } } }`, nil)
		harness.WithAPIKey(t, root, "ada", "orders:read")
		if m := harness.MustNext(t, events); harness.Text(m.Event, "type") != "API_KEY_CREATED" {
			t.Errorf("ada is told %+v", m)
		}
	})
}

// TestServer_bounds_the_security_events_of_a_flood sends thousands of wrong passwords.
func TestServer_bounds_the_security_events_of_a_flood(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		operator := local.Address(testenv.FreePort(t))
		p := harness.StartServer(t, database, "BACKPLANE_RATE_LIMIT=on", "BACKPLANE_ADMIN_LISTEN="+operator)
		harness.SignUp(t, p, "ada")
		attempts := harness.Size(2_000, 10_000)
		var mu sync.Mutex
		answers := map[string]int{} // by code: an attempt that the server was too busy for is none
		var flood sync.WaitGroup
		for worker := range 20 {
			flood.Go(func() {
				for i := range attempts / 20 {
					a, err := harness.Anonymous(p).Send(t.Context(), signInMutation, harness.Input(harness.Fields{
						"login": []string{"ada", fmt.Sprint("unknown ", worker, " ", i)}[i%2], "password": wrongPassword,
					}))
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					answers[codeOf(a, "signIn")]++
					mu.Unlock()
				}
			})
		}
		flood.Wait()
		total := answers["CREDENTIALS_WRONG"] + answers["RATE_LIMITED"]
		seen := func(typ string) int {
			return int(harness.Metric(t, operator, fmt.Sprintf("backplane_security_events_total{type=%q}", typ)))
		}
		failed, throttled := seen("sign_in.failed"), seen("sign_in.throttled")+seen("rate_limited") // by the rate of writes of the address
		if failed != answers["CREDENTIALS_WRONG"] || throttled != answers["RATE_LIMITED"] || failed == 0 || throttled < attempts/2 || harness.Metric(t, operator, "backplane_security_events_dropped_total") != 0 {
			t.Errorf("the metrics count %d failed and %d throttled sign-ins, and the answers were %v", failed, throttled, answers)
		}
		p.Stop() // which stores what is counted
		events := slices.DeleteFunc(harness.SecurityEvents(t, p), func(e harness.SecurityEvent) bool {
			return e.Type != "sign_in.failed" && e.Type != "sign_in.throttled" && e.Type != "rate_limited"
		})
		if n := countEvents(events); n != total || len(events) > 30 {
			t.Errorf("%d answers are %d security events that count %d, want at most 30 that count all", total, len(events), n)
		}
	})
}

// TestSecurity_events_follows writes what is stored while the command runs.
func TestSecurity_events_follows(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // so that the test does not wait for ever for a line
		defer cancel()
		cmd := exec.CommandContext(ctx, testenv.Binary(t), "security", "events", "--since", "1h", "--follow", "--type", "sign_up.succeeded")
		cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), harness.Settings(database)...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for _, name := range []string{"ada", "bob"} {
			id := harness.SignUp(t, p, name).UserID(t)
			if !lines.Scan() || !strings.Contains(lines.Text(), `"userId":"`+id+`"`) {
				t.Errorf("after %s signed up the command wrote %q, %v", name, lines.Text(), lines.Err())
			}
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the command ended with %v", err)
		}
	})
}

func countEvents(events []harness.SecurityEvent) (n int) {
	for _, e := range events {
		n += e.Count
	}
	return n
}
