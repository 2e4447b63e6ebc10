package httpd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/uid"
)

// schema has fields that return what reached them.
func schema() *executortest.Schema {
	see := func(of func(context.Context) any) executortest.Resolver {
		return func(ctx context.Context, _ map[string]any) (any, error) { return of(ctx), nil }
	}
	return executortest.New(executortest.Object{
		"hello": see(func(ctx context.Context) any { return "hi " + string(callerOf(ctx)) }),
		"echo": see(func(ctx context.Context) any {
			return auth.ClientFrom(ctx).Address + " " + auth.ClientFrom(ctx).UserAgent
		}),
		"fail":  executortest.Resolver(func(context.Context, map[string]any) (any, error) { return nil, errors.New("secret") }),
		"thing": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) { return nil, auth.NotSignedIn(ctx) }),
		"wait": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}),
	}, executortest.Object{"touch": see(func(ctx context.Context) any { return executor.IdempotencyKey(ctx) })}, executortest.Object{"ticks": []any{1}})
}

func callerOf(ctx context.Context) uid.User {
	if p := auth.From(ctx); p != nil {
		return p.UserID
	}
	return "anonymous"
}

// tokens is an Authenticator with one valid token.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, bearer string) (*auth.Principal, error) {
	switch bearer {
	case "good":
		return &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}, nil
	case "down":
		return nil, fault.New(fault.Unavailable, "The database is away.")
	case "broken":
		return nil, errors.New("secret")
	}
	return nil, fault.New(fault.Unauthenticated, "No.")
}

func newServer(t testing.TB, cfg httpd.Config, deps httpd.Deps) *httpd.Server {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	x, err := executor.New(schema(), executor.Config{}, log)
	if err != nil {
		t.Fatal(err)
	}
	cfg.AllowedHosts = append(cfg.AllowedHosts, "example.com", "a")
	s, err := httpd.New(cfg, x, deps, log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// request makes a request from its first line and its headers, as HTTP writes
// them, and a body.
func request(line, headers, body string) *http.Request {
	method, target, _ := strings.Cut(line, " ")
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for h := range strings.SplitSeq(headers, "\n") {
		if name, value, ok := strings.Cut(h, ":"); ok {
			r.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return r
}

func answer(s *httpd.Server, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// errorCode returns the code of the first error in a GraphQL answer, or of a problem.
func errorCode(tb testing.TB, body []byte) string {
	tb.Helper()
	var a struct {
		Code   string `json:"code"`
		Errors []struct {
			Extensions struct {
				Code string `json:"code"`
			} `json:"extensions"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		tb.Fatalf("answer is no JSON: %v: %s", err, body)
	}
	if len(a.Errors) > 0 {
		return a.Errors[0].Extensions.Code
	}
	return a.Code
}

const (
	isJSON  = "Content-Type: application/json"
	wantsGQ = "\nAccept: application/graphql-response+json"
)

func TestServer_GraphQL(t *testing.T) {
	t.Parallel()
	deep := `{"query":"{hello}","variables":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`
	tests := []struct {
		name, line, headers, body string
		status                    int
		code                      fault.Code // of the error, empty if there is none
	}{
		{"a query by POST", "POST /graphql", isJSON, `{"query":"{hello}"}`, 200, ""},
		{"a query by GET", "GET /graphql?query={hello}", "", "", 200, ""},
		{"a mutation by POST", "POST /graphql", isJSON, `{"query":"mutation{touch}"}`, 200, ""},
		{"a mutation by GET", "GET /graphql?query=mutation{touch}", "", "", 405, fault.BadRequest},
		{"one of two operations by GET", "GET /graphql?query=query+A{hello}mutation+B{touch}&operationName=B", "", "", 405, fault.BadRequest},
		{"a form", "POST /graphql", "Content-Type: application/x-www-form-urlencoded", "query=mutation{touch}", 415, fault.BadRequest},
		{"a multipart form", "POST /graphql", "Content-Type: multipart/form-data; boundary=x", "--x", 415, fault.BadRequest},
		{"plain text", "POST /graphql", "Content-Type: text/plain", `{"query":"mutation{touch}"}`, 415, fault.BadRequest},
		{"no content type", "POST /graphql", "", `{"query":"{hello}"}`, 415, fault.BadRequest},
		{"JSON in another charset", "POST /graphql", "Content-Type: application/json; charset=utf-16", `{}`, 415, fault.BadRequest},
		{"JSON in UTF-8", "POST /graphql", "Content-Type: application/json; charset=UTF-8", `{"query":"{hello}"}`, 200, ""},
		{"compressed JSON", "POST /graphql", isJSON + "\nContent-Encoding: gzip", `x`, 415, fault.BadRequest},
		{"another method", "PUT /graphql", isJSON, `{"query":"{hello}"}`, 405, fault.BadRequest},
		{"HTML is accepted only", "POST /graphql", isJSON + "\nAccept: text/html", `{"query":"{hello}"}`, 406, fault.BadRequest},
		{"the Accept header of a browser", "GET /graphql?query={hello}", "Accept: text/html,application/xml;q=0.9,*/*;q=0.8", "", 200, ""},
		{"a subscription by POST", "POST /graphql", isJSON, `{"query":"subscription{ticks}"}`, 400, fault.BadRequest},
		{"a subscription by GET", "GET /graphql?query=subscription{ticks}", "", "", 400, fault.BadRequest},
		{"an array", "POST /graphql", isJSON, `[{"query":"{hello}"}]`, 400, fault.BadRequest},
		{"no body", "POST /graphql", isJSON, "", 400, fault.BadRequest},
		{"no query", "POST /graphql", isJSON, "{}", 400, fault.BadRequest},
		{"no query by GET", "GET /graphql", "", "", 400, fault.BadRequest},
		{"half a body", "POST /graphql", isJSON, `{"query":"{hello}"`, 400, fault.BadRequest},
		{"text after the JSON", "POST /graphql", isJSON, `{"query":"{hello}"}{}`, 400, fault.BadRequest},
		{"a duplicate name", "POST /graphql", isJSON, `{"query":"{hello}","query":"mutation{touch}"}`, 400, fault.BadRequest},
		{"a duplicate name in variables", "POST /graphql", isJSON, `{"query":"{hello}","variables":{"a":1,"a":2}}`, 400, fault.BadRequest},
		{"invalid UTF-8", "POST /graphql", isJSON, "{\"query\":\"{hello}#\xff\"}", 400, fault.BadRequest},
		{"invalid UTF-8 by GET", "GET /graphql?query={hello}%23%ff", "", "", 400, fault.BadRequest},
		{"deep JSON", "POST /graphql", isJSON, deep, 400, fault.BadRequest},
		{"a parameter twice by GET", "GET /graphql?query={hello}&query={hello}", "", "", 400, fault.BadRequest},
		{"variables by GET that are no JSON", "GET /graphql?query={hello}&variables=x", "", "", 400, fault.BadRequest},
		{"variables by GET that are no object", "GET /graphql?query={hello}&variables=[]", "", "", 400, fault.BadRequest},
		{"a broken query string", "GET /graphql?query=%zz", "", "", 400, fault.BadRequest},
		{"an invalid document for JSON", "POST /graphql", isJSON, `{"query":"{helo}"}`, 200, fault.GraphQLValidationFailed},
		{"an invalid document for GraphQL", "POST /graphql", isJSON + wantsGQ, `{"query":"{helo}"}`, 400, fault.GraphQLValidationFailed},
		{"10,000 aliases", "POST /graphql", isJSON, `{"query":"{` + strings.Repeat("a:hello ", 10_000) + `}"}`, 200, fault.TooManyTokens},
		{"an unknown persisted query", "POST /graphql", isJSON, `{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"` + strings.Repeat("a", 64) + `"}}}`, 200, fault.PersistedQueryNotFound},
		{"an internal error", "POST /graphql", isJSON + wantsGQ, `{"query":"{fail}"}`, 500, fault.Internal},
		{"an internal error for a client of application/json", "POST /graphql", isJSON, `{"query":"{fail}"}`, 500, fault.Internal},
		{"an internal error beside data", "POST /graphql", isJSON + wantsGQ, `{"query":"{fail hello}"}`, 200, fault.Internal},
		{"a body of 50 MB", "POST /graphql", isJSON, strings.Repeat(" ", 50<<20), 413, fault.BodyTooLarge},
		{"a valid token", "POST /graphql", isJSON + "\nAuthorization: Bearer good", `{"query":"{hello}"}`, 200, ""},
		{"an invalid token", "POST /graphql", isJSON + "\nAuthorization: Bearer bad", `{"query":"{hello}"}`, 401, fault.Unauthenticated},
		{"an empty token", "POST /graphql", isJSON + "\nAuthorization: Bearer", `{"query":"{hello}"}`, 401, fault.Unauthenticated},
		{"two tokens", "POST /graphql", isJSON + "\nAuthorization: Bearer good\nAuthorization: Bearer good", `{"query":"{hello}"}`, 401, fault.Unauthenticated},
		{"a token that cannot be checked", "POST /graphql", isJSON + "\nAuthorization: Bearer down", `{"query":"{hello}"}`, 503, fault.Unavailable},
		{"a token whose check fails with an internal error", "POST /graphql", isJSON + "\nAuthorization: Bearer broken", `{"query":"{hello}"}`, 500, fault.Internal},
		{"an idempotency key with one mutation field", "POST /graphql", isJSON + "\nIdempotency-Key: k", `{"query":"mutation{touch}"}`, 200, ""},
		{"an idempotency key with two mutation fields", "POST /graphql", isJSON + "\nIdempotency-Key: k", `{"query":"mutation{a:touch b:touch}"}`, 400, fault.IdempotencyKeyInvalid},
		{"an idempotency key with a mutation and __typename", "POST /graphql", isJSON + "\nIdempotency-Key: k", `{"query":"mutation{__typename touch ...F} fragment F on Mutation{t:__typename}"}`, 200, ""},
		{"an idempotency key with equal fields", "POST /graphql", isJSON + "\nIdempotency-Key: k", `{"query":"mutation{touch ...F touch} fragment F on Mutation{touch}"}`, 200, ""},
		{"an idempotency key with a field that is skipped", "POST /graphql", isJSON + "\nIdempotency-Key: k", `{"query":"mutation($b:Boolean!){a:touch @include(if:$b) b:touch}","variables":{"b":false}}`, 200, ""},
		{"an idempotency key without a mutation field", "POST /graphql", isJSON + "\nIdempotency-Key: k", `{"query":"mutation{__typename}"}`, 400, fault.IdempotencyKeyInvalid},
		{"an idempotency key that is empty", "POST /graphql", isJSON + "\nIdempotency-Key:", `{"query":"mutation{touch}"}`, 400, fault.IdempotencyKeyInvalid},
		{"two idempotency keys", "POST /graphql", isJSON + "\nIdempotency-Key: a\nIdempotency-Key: b", `{"query":"mutation{touch}"}`, 400, fault.IdempotencyKeyInvalid},
		{"an unknown path", "GET /nothing", "", "", 404, fault.NotFound},
	}
	s := newServer(t, httpd.Config{}, httpd.Deps{Auth: tokens{}})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := answer(s, request(tt.line, tt.headers, tt.body))
			if w.Code != tt.status || errorCode(t, w.Body.Bytes()) != string(tt.code) {
				t.Errorf("answer = %d %s, want %d %s", w.Code, w.Body, tt.status, tt.code)
			}
			if text := w.Body.String(); strings.Contains(text, "secret") || len(text) > 2_000 {
				t.Errorf("the answer leaks or is too long: %s", text)
			}
			if tt.code != "" && tt.code != fault.Internal && strings.Contains(w.Body.String(), `"data"`) {
				t.Errorf("the answer to an operation that was not run has data: %s", w.Body)
			}
		})
	}
}

func TestServer_GraphQL_gives_responses(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpd.Config{Batch: 2, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, httpd.Deps{Auth: tokens{}})
	tests := []struct{ name, headers, body, want string }{
		{"an anonymous caller", "", `{"query":"{hello}"}`, `{"data":{"hello":"hi anonymous"}}`},
		{"a caller", "Authorization: bearer good", `{"query":"{hello}"}`, `{"data":{"hello":"hi usr_1"}}`},
		{"the idempotency key arrives", "Idempotency-Key: k-1", `{"query":"mutation{touch}"}`, `{"data":{"touch":"k-1"}}`},
		{"a query has no idempotency key", "Idempotency-Key: k-1", `{"query":"{a:hello b:hello}"}`, `{"data":{"a":"hi anonymous","b":"hi anonymous"}}`},
		{"the peer's address", "User-Agent: test", `{"query":"{echo}"}`, `{"data":{"echo":"192.0.2.1 test"}}`},
		{"an address from a trusted proxy", "X-Forwarded-For: 198.51.100.7", `{"query":"{echo}"}`, `{"data":{"echo":"198.51.100.7 "}}`},
		{"the last address that no trusted proxy has", "X-Forwarded-For: 203.0.113.9, 198.51.100.7, 192.0.2.8", `{"query":"{echo}"}`, `{"data":{"echo":"198.51.100.7 "}}`},
		{"headers in two lines", "X-Forwarded-For: 203.0.113.9\nX-Forwarded-For: 192.0.2.8", `{"query":"{echo}"}`, `{"data":{"echo":"203.0.113.9 "}}`},
		{"no address at all", "X-Forwarded-For: unknown", `{"query":"{echo}"}`, `{"data":{"echo":"192.0.2.1 "}}`},
		{"an array of allowed length", "", `[{"query":"{hello}"},{"query":"{helo}"}]`,
			`[{"data":{"hello":"hi anonymous"}},{"errors":[{"message":"Cannot query field \"helo\" on type \"Query\". Did you mean \"hello\"?","locations":[{"line":1,"column":2}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := answer(s, request("POST /graphql", isJSON+"\n"+tt.headers, tt.body))
			if diff := cmp.Diff(tt.want, strings.TrimSpace(w.Body.String())); w.Code != 200 || diff != "" {
				t.Errorf("answer = %d (-want +got): %s", w.Code, diff)
			}
		})
	}
	if w := answer(s, request("POST /graphql", isJSON, `[{},{},{}]`)); w.Code != 400 {
		t.Errorf("an array that is too long = %d %s, want 400", w.Code, w.Body)
	}
}

func TestServer_GraphQL_ignores_forwarded_headers_of_untrusted_peers(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpd.Config{}, httpd.Deps{})
	w := answer(s, request("POST /graphql", isJSON+"\nX-Forwarded-For: 203.0.113.9", `{"query":"{echo}"}`))
	if want := `{"data":{"echo":"192.0.2.1 "}}`; strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("answer = %s, want %s", w.Body, want)
	}
}

func TestServer_GraphQL_negotiates_the_media_type(t *testing.T) {
	t.Parallel()
	const gq, js = "application/graphql-response+json", "application/json"
	s := newServer(t, httpd.Config{}, httpd.Deps{})
	for accept, want := range map[string]string{
		"":                                    js,
		"*/*":                                 js,
		"application/*":                       js,
		gq:                                    gq,
		gq + ", " + js:                        gq,
		js + ", " + gq:                        js,
		js + ";q=0.5, " + gq:                  gq,
		gq + ";q=0, " + js:                    js,
		gq + ";charset=utf-8," + js + ";q=.9": gq,
		gq + ";charset=utf-16":                "",
		gq + ";q=nonsense":                    "",
		"text/html":                           "",
	} {
		w := answer(s, request("POST /graphql", isJSON+"\nAccept: "+accept, `{"query":"{hello}"}`))
		got, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
		if w.Code == http.StatusNotAcceptable {
			got = ""
		}
		if got != want {
			t.Errorf("Accept %q gave %q, want %q", accept, got, want)
		}
	}
}

func TestServer_GraphQL_is_busy_without_a_slot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, httpd.Config{Operations: 1}, httpd.Deps{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			answer(s, request("POST /graphql", isJSON, `{"query":"{wait}"}`).WithContext(ctx))
		}()
		synctest.Wait()
		w := answer(s, fromAddress("192.0.2.2", request("POST /graphql", isJSON, `{"query":"{hello}"}`)))
		if w.Code != 503 || errorCode(t, w.Body.Bytes()) != string(fault.ServerBusy) || w.Header().Get("Retry-After") != "1" {
			t.Errorf("answer while busy = %d %s, want 503 %s", w.Code, w.Body, fault.ServerBusy)
		}
		cancel()
		<-done
		if w := answer(s, request("POST /graphql", isJSON, `{"query":"{hello}"}`)); w.Code != 200 {
			t.Errorf("answer afterwards = %d %s, want 200", w.Code, w.Body)
		}
	})
}

func fromAddress(address string, r *http.Request) *http.Request {
	r.RemoteAddr = address + ":1234"
	return r
}

// TestServer_GraphQL_refuses_a_caller_that_holds_its_share has one address hold a quarter of the slots.
func TestServer_GraphQL_refuses_a_caller_that_holds_its_share(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, httpd.Config{Operations: 8}, httpd.Deps{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { answer(s, request("POST /graphql", isJSON, `{"query":"{wait}"}`).WithContext(ctx)) })
		}
		synctest.Wait()
		for address, want := range map[string]int{"192.0.2.1": http.StatusTooManyRequests, "192.0.2.2": http.StatusOK} {
			if w := answer(s, fromAddress(address, request("POST /graphql", isJSON, `{"query":"{hello}"}`))); w.Code != want {
				t.Errorf("answer to %s = %d %s, want %d", address, w.Code, w.Body, want)
			}
		}
		cancel()
		wg.Wait()
		if w := answer(s, request("POST /graphql", isJSON, `{"query":"{hello}"}`)); w.Code != http.StatusOK {
			t.Errorf("answer afterwards = %d %s, want 200", w.Code, w.Body)
		}
	})
}

// TestServer_waits_less_in_a_standing_queue keeps the only slot taken while a caller arrives each 0.4 s.
func TestServer_waits_less_in_a_standing_queue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, httpd.Config{Operations: 1, QueueTime: time.Second}, httpd.Deps{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { answer(s, request("POST /graphql", isJSON, `{"query":"{wait}"}`).WithContext(ctx)) })
		synctest.Wait()
		const callers = 6
		var waits [callers]time.Duration
		for n := range callers {
			wg.Go(func() {
				began := time.Now()
				answer(s, fromAddress(fmt.Sprint("192.0.2.", 2+n), request("POST /graphql", isJSON, `{"query":"{hello}"}`)))
				waits[n] = time.Since(began)
			})
			time.Sleep(400 * time.Millisecond)
		}
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		const full, short = time.Second, time.Second / 10
		if want := [callers]time.Duration{full, full, full, short, short, full}; waits != want {
			t.Errorf("the callers waited %v, want %v", waits, want)
		}
	})
}

// TestServer_checks_a_bounded_number_of_credentials_at_a_time has checks wait, as they do while the database stalls.
func TestServer_checks_a_bounded_number_of_credentials_at_a_time(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		checks := &slowChecks{}
		s := newServer(t, httpd.Config{Operations: 2}, httpd.Deps{Auth: checks})
		var wg sync.WaitGroup
		var busy atomic.Int64
		for range 5 {
			wg.Go(func() {
				if w := answer(s, request("POST /graphql", isJSON+"\nAuthorization: Bearer x", `{"query":"{hello}"}`)); w.Code == 503 {
					busy.Add(1)
				}
			})
		}
		wg.Wait()
		if most := checks.most.Load(); most != 2 || busy.Load() != 3 {
			t.Errorf("%d checks at a time and %d callers refused, want 2 and 3", most, busy.Load())
		}
	})
}

// slowChecks is an Authenticator whose checks take a minute.
type slowChecks struct{ now, most atomic.Int64 }

func (c *slowChecks) Authenticate(context.Context, string) (*auth.Principal, error) {
	c.most.Store(max(c.most.Load(), c.now.Add(1)))
	time.Sleep(time.Minute)
	c.now.Add(-1)
	return &auth.Principal{UserID: "usr_1"}, nil
}

func TestServer_sets_headers(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpd.Config{AllowedOrigins: []string{"https://shop.example"}, CORSHeaders: []string{"traceparent"}, CORSExposedHeaders: []string{"Server-Timing"}}, httpd.Deps{Auth: tokens{}, JWKS: func() []byte { return []byte(`{"keys":[]}`) }})
	tests := []struct {
		name, line, headers string
		status              int
		want                map[string]string // a value "" means: the header is not there
	}{
		{"a client's valid request id is kept", "GET /healthz", "X-Request-Id: abc-1", 200, map[string]string{"X-Request-Id": "abc-1"}},
		{"every answer forbids sniffing and frames", "GET /nothing", "", 404, map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Content-Type": "application/problem+json", "Set-Cookie": "",
		}},
		{"an allowed origin may call", "GET /graphql?query={hello}", "Origin: https://shop.example", 200, map[string]string{
			"Access-Control-Allow-Origin": "https://shop.example", "Access-Control-Allow-Credentials": "",
		}},
		{"an allowed origin gets its preflight", "OPTIONS /graphql", "Origin: https://shop.example\nAccess-Control-Request-Method: POST", 204, map[string]string{
			"Access-Control-Allow-Origin": "https://shop.example", "Access-Control-Allow-Methods": "POST", "Access-Control-Max-Age": "7200", "Access-Control-Allow-Credentials": "",
		}},
		{"an allowed page may send the usual headers", "OPTIONS /graphql", "Origin: https://shop.example\nAccess-Control-Request-Method: POST\nAccess-Control-Request-Headers: authorization,content-type,traceparent", 204, map[string]string{
			"Access-Control-Allow-Headers": "authorization,content-type,traceparent",
		}},
		{"an allowed page may not send others", "OPTIONS /graphql", "Origin: https://shop.example\nAccess-Control-Request-Method: POST\nAccess-Control-Request-Headers: x-other", 405, map[string]string{
			"Access-Control-Allow-Origin": "", "Access-Control-Allow-Headers": "",
		}},
		{"an allowed page may read further headers", "GET /healthz", "Origin: https://shop.example", 200, map[string]string{
			"Access-Control-Expose-Headers": "Allow, Deprecation, Etag, Link, Location, Preference-Applied, Retry-After, Sunset, Www-Authenticate, X-Request-Id, X-Total-Count, Server-Timing",
		}},
		{"another origin gets no preflight", "OPTIONS /graphql", "Origin: https://evil.example\nAccess-Control-Request-Method: POST", 405, map[string]string{
			"Access-Control-Allow-Origin": "", "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
		}},
		{"a 405 has the allowed methods", "PATCH /graphql", "", 405, map[string]string{"Allow": "GET, POST"}},
		{"a mutation by GET has the allowed method", "GET /graphql?query=mutation{touch}", "", 405, map[string]string{"Allow": "POST"}},
		{"a 401 has a challenge", "GET /graphql?query={hello}", "Authorization: Bearer bad", 401, map[string]string{"WWW-Authenticate": `Bearer realm="backplane", error="invalid_token"`}},
		{"keys are public", "GET /.well-known/jwks.json", "", 200, map[string]string{"Cache-Control": "public, max-age=60", "Content-Type": "application/json"}},
		{"answers are not stored", "GET /graphql?query={hello}", "", 200, map[string]string{"Cache-Control": "no-store"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := answer(s, request(tt.line, tt.headers, ""))
			if w.Code != tt.status {
				t.Errorf("status = %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			for name, want := range tt.want {
				if got := w.Header().Get(name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
		})
	}
	w := answer(s, request("GET /healthz", "X-Request-Id: <script>", ""))
	if id := w.Header().Get("X-Request-Id"); !requestlog.ValidRequestID(id) || strings.Contains(id, "<") {
		t.Errorf("X-Request-Id = %q, want a fresh one", id)
	}
}

func TestServer_answers_health_checks(t *testing.T) {
	t.Parallel()
	down := httpd.Deps{Ready: func(context.Context) error { return errors.New("secret database") }}
	behind := httpd.Deps{Ready: func(context.Context) error {
		return fault.New(fault.Unavailable, "Run backplane migrate first.")
	}}
	for _, tt := range []struct {
		line   string
		deps   httpd.Deps
		status int
		says   string
	}{
		{"GET /healthz", down, 200, "ok"},
		{"GET /readyz", httpd.Deps{}, 200, "ready"},
		{"GET /readyz", down, 503, "its log says why"},
		{"GET /readyz", behind, 503, "Run backplane migrate first."},
		{"GET /.well-known/jwks.json", httpd.Deps{}, 404, "nothing at this path"},
	} {
		w := answer(newServer(t, httpd.Config{}, tt.deps), request(tt.line, "", ""))
		if text := w.Body.String(); w.Code != tt.status || strings.Contains(text, "secret") || !strings.Contains(text, tt.says) {
			t.Errorf("%s = %d %s, want %d %s", tt.line, w.Code, text, tt.status, tt.says)
		}
	}
}

func TestServer_serves_GraphiQL(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpd.Config{}, httpd.Deps{})
	page := answer(s, request("GET /", "", ""))
	if page.Code != 200 || !strings.HasPrefix(page.Header().Get("Content-Type"), "text/html") || strings.Contains(page.Body.String(), "://") {
		t.Errorf("the page = %d %s, want HTML that loads nothing from elsewhere", page.Code, page.Body)
	}
	for _, name := range []string{"graphiql.js", "graphiql.css", "react.js", "react-dom.js", "start.js", "account.js", "subscribe.js", "page.css", "favicon.svg"} {
		if !strings.Contains(page.Body.String(), `"graphiql/`+name) {
			t.Errorf("the page does not load %s", name)
		}
		plain := answer(s, request("GET /graphiql/"+name, "", ""))
		packed := answer(s, request("GET /graphiql/"+name, "Accept-Encoding: gzip", ""))
		if plain.Code != 200 || packed.Code != 200 || plain.Body.Len() == 0 {
			t.Errorf("%s = %d and %d, want 200", name, plain.Code, packed.Code)
		}
		if again := answer(s, request("GET /graphiql/"+name, "If-None-Match: "+plain.Header().Get("ETag"), "")); again.Code != 304 {
			t.Errorf("%s again = %d, want 304", name, again.Code)
		}
	}
	const browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	if w := answer(s, request("GET /graphql", browser, "")); w.Code != 303 || w.Header().Get("Location") != "./" {
		t.Errorf("/graphql in a browser = %d to %q, want GraphiQL", w.Code, w.Header().Get("Location"))
	}
	hidden := newServer(t, httpd.Config{HideDocs: true}, httpd.Deps{})
	if w := answer(hidden, request("GET /graphql", browser, "")); w.Code == 303 {
		t.Error("without GraphiQL /graphql in a browser leads to it")
	}
	if w := answer(s, request("GET /graphql?query={hello}", browser, "")); w.Code != 200 {
		t.Errorf("an operation in a browser = %d, want 200", w.Code)
	}
	if w := answer(s, request("GET /graphiql/README.md", "", "")); w.Code != 404 {
		t.Errorf("a file that is not for the page = %d, want 404", w.Code)
	}
}

func TestServer_prefers_gzip_of_equal_encodings(t *testing.T) {
	t.Parallel()
	schema := strings.Repeat("type Query { hello: String }\n", 100)
	s := newServer(t, httpd.Config{}, httpd.Deps{Schema: []byte(schema)})
	for accepted, want := range map[string]string{
		"": "", "identity": "", "gzip": "gzip", "zstd": "zstd", "gzip, deflate, br, zstd": "gzip", "zstd, gzip": "gzip", "gzip;q=0.5, zstd": "zstd", "gzip;q=0": "",
	} {
		w := answer(s, request("GET /schema.graphql", "Accept-Encoding: "+accepted, ""))
		if got := w.Header().Get("Content-Encoding"); w.Code != 200 || got != want {
			t.Errorf("with Accept-Encoding %q: %d, encoding %q, want %q", accepted, w.Code, got, want)
		}
	}
	packed := answer(s, request("GET /graphiql/graphiql.js", "Accept-Encoding: gzip;q=0", ""))
	if got := packed.Header().Get("Content-Encoding"); got != "" {
		t.Errorf("a file for a client that refuses gzip has the encoding %q", got)
	}
}

func TestServer_serves_the_schema_unless_it_is_hidden(t *testing.T) {
	t.Parallel()
	w := answer(newServer(t, httpd.Config{}, httpd.Deps{Schema: []byte("type Query")}), request("GET /schema.graphql", "", ""))
	if w.Code != 200 || w.Body.String() != "type Query" {
		t.Errorf("the schema = %d %s", w.Code, w.Body)
	}
	if w := answer(newServer(t, httpd.Config{}, httpd.Deps{}), request("GET /schema.graphql", "", "")); w.Code != 404 {
		t.Errorf("a hidden schema = %d %s, want 404", w.Code, w.Body)
	}
}

func TestServer_takes_no_malformed_credential_for_an_anonymous_caller(t *testing.T) {
	t.Parallel()
	s := newServer(t, httpd.Config{}, httpd.Deps{Auth: tokens{}})
	for _, value := range []string{"Basic x", "Bearer", "Bearer ", "token", "", "Bearer a b"} {
		r := httptest.NewRequest(http.MethodPost, "/graphql", strings.NewReader(`{"query":"{hello}"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", value)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized {
			t.Errorf("with Authorization: %q: %d %s, want 401", value, w.Code, w.Body)
		}
	}
}

func TestServer_hides_its_docs_and_says_where_to_report_vulnerabilities(t *testing.T) {
	t.Parallel()
	open := newServer(t, httpd.Config{SecurityContact: "mailto:security@shop.example"}, httpd.Deps{})
	hidden := newServer(t, httpd.Config{HideDocs: true}, httpd.Deps{})
	for path, want := range map[string][2]int{"/": {200, 404}, "/graphiql/graphiql.js": {200, 404}, "/.well-known/security.txt": {200, 404}, "/healthz": {200, 200}} {
		for i, s := range []*httpd.Server{open, hidden} {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want[i] || strings.HasSuffix(path, ".txt") && i == 0 && !strings.HasPrefix(w.Body.String(), "Contact: mailto:security@shop.example\nExpires: 20") {
				t.Errorf("%s with hidden docs %v: %d %.60s, want %d", path, i == 1, w.Code, w.Body, want[i])
			}
		}
	}
}
