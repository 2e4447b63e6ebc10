package subscriptions

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

const createTicket = `mutation($query: String!, $variables: JSON) {
	createStreamTicket(input: {query: $query, variables: $variables}) { ticket expiresAt userErrors { code path } } }`

// ticketFor returns a ticket of the caller for the operation.
func ticketFor(t *testing.T, c harness.Caller, query string, vars map[string]any) string {
	t.Helper()
	data := c.Do(t, createTicket, map[string]any{"query": query, "variables": vars})
	ticket := harness.Text(data, "createStreamTicket", "ticket")
	if ticket == "" || harness.Text(data, "createStreamTicket", "expiresAt") == "" {
		t.Fatalf("createStreamTicket gave %v", data)
	}
	return ticket
}

// listenByTicket opens an event stream as a browser does, which cannot send
// headers but for that of a reconnect.
func listenByTicket(ctx context.Context, base, ticket, lastEventID string) (harness.Subscription, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/graphql?ticket="+url.QueryEscape(ticket), nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, resp.Body)
		return nil, resp.StatusCode, resp.Body.Close()
	}
	context.AfterFunc(ctx, func() { _ = resp.Body.Close() })
	return harness.NewSSESubscription(resp.Body), resp.StatusCode, nil
}

func mustListenByTicket(t *testing.T, c harness.Caller, ticket, lastEventID string) harness.Subscription {
	t.Helper()
	l, status, err := listenByTicket(t.Context(), c.BaseURL, ticket, lastEventID)
	if err != nil || l == nil {
		t.Fatalf("a ticket opened no stream: status %d, error %v", status, err)
	}
	return l
}

func TestServer_opens_streams_by_ticket_on_every_node_until_its_credential_ends(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	first := harness.StartServer(t, database)
	second := testenv.Server(t, append(harness.Settings(database), "BACKPLANE_LOG_LEVEL=debug")...)
	root := harness.SignInAdmin(t, first)
	ada := harness.SignUp(t, first, "ada")
	there := harness.Caller{BaseURL: second.BaseURL, Token: ada.Token}
	ticket := ticketFor(t, ada, harness.FollowEvents, map[string]any{"types": []any{"PRODUCT_CREATED"}, "after": root.LogHead(t)})

	id := harness.CreateProduct(t, root, "TEA", 1)
	l := mustListenByTicket(t, there, ticket, "")
	m := harness.MustNext(t, l)
	if harness.Text(m.Event, "subjectId") != id {
		t.Fatalf("the stream of a ticket brought %+v, want the product", m)
	}
	id = harness.CreateProduct(t, root, "SALT", 1)
	if m := harness.MustNext(t, mustListenByTicket(t, there, ticket, m.Cursor)); harness.Text(m.Event, "subjectId") != id {
		t.Errorf("with the cursor of the first event the ticket brought %+v, want the second", m)
	}
	harness.MustNext(t, l)
	ada.Do(t, `mutation { signOut(input: {}) { userErrors { code } } }`, nil)
	if m := harness.MustNext(t, l); m.Code != "UNAUTHENTICATED" {
		t.Errorf("after signing out on another node the stream says %+v, want UNAUTHENTICATED", m)
	}
	if _, status, err := listenByTicket(t.Context(), second.BaseURL, ticket, ""); status != http.StatusUnauthorized {
		t.Errorf("the ticket of a session that has ended: status %d, error %v, want 401", status, err)
	}
	if strings.Contains(second.Logs(), ticket) || strings.Contains(second.Logs(), "bpt_") {
		t.Error("the log shows the ticket")
	}
}

func TestServer_makes_tickets_only_for_what_can_be_streamed(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["SQLite"](t))
	ada := harness.SignUp(t, p, "ada")
	for name, tt := range map[string]struct {
		query string
		vars  any
		code  string
		path  string
	}{
		"no GraphQL":            {"subscription {", nil, "GRAPHQL_PARSE_FAILED", "query"},
		"an unknown field":      {"subscription { nothing }", nil, "GRAPHQL_VALIDATION_FAILED", "query"},
		"a mutation":            {"mutation { signOut(input: {}) { userErrors { code } } }", nil, "BAD_INPUT", "query"},
		"a wrong variable":      {"subscription($t: [EventType!]) { events(types: $t) { id } }", map[string]any{"t": "NOTHING"}, "BAD_INPUT", "variables"},
		"variables in a list":   {"subscription { events { id } }", []any{}, "BAD_INPUT", "variables"},
		"too long for a ticket": {"subscription { events { id } } #" + noise(12<<10), nil, "BODY_TOO_LARGE", "query"},
	} {
		data := ada.Do(t, createTicket, map[string]any{"query": tt.query, "variables": tt.vars})
		if got := harness.At(data, "createStreamTicket", "userErrors", 0); harness.Text(got, "code") != tt.code || harness.Text(got, "path", 0) != tt.path {
			t.Errorf("a ticket for %s: %v, want %s at %s", name, data, tt.code, tt.path)
		}
	}
	if got := harness.Anonymous(p).RefusalCode(t, createTicket, map[string]any{"query": "subscription { events { id } }"}); got != "UNAUTHENTICATED" {
		t.Errorf("a ticket of an anonymous caller: %q, want UNAUTHENTICATED", got)
	}
}

// noise is text of n bytes that does not compress well.
func noise(n int) string {
	var b strings.Builder
	for x := uint64(1); b.Len() < n; x = x*6364136223846793005 + 1442695040888963407 {
		b.WriteByte('a' + byte(x>>33)%26)
		b.WriteByte('0' + byte(x>>43)%10)
	}
	return b.String()
}
