package app_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/user"
)

// duplicates are the same read by GraphQL and by a route, of a whole server in this
// process.
type duplicates struct {
	handler       http.Handler
	graphql, rest func() *http.Request
}

func newDuplicates(tb testing.TB) duplicates {
	tb.Helper()
	database := "BACKPLANE_DATABASE_URL=sqlite:" + filepath.Join(tb.TempDir(), "cost.db")
	cfg, err := config.FromEnv([]string{database, "BACKPLANE_LOG_LEVEL=error"}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	server, db, domains := newServer(tb, app.Env{Config: cfg, Log: slog.New(slog.DiscardHandler), Out: io.Discard})
	id, key := createUser(tb, db, domains)
	body, err := json.Marshal(map[string]any{
		"query": "query($id: ID!) { user(id: $id) { id username email } }", "variables": map[string]any{"id": id},
	})
	if err != nil {
		tb.Fatal(err)
	}
	request := func(method, target, body string) *http.Request {
		r := httptest.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Content-Type", "application/json")
		return r
	}
	return duplicates{
		server.Handler(),
		func() *http.Request { return request(http.MethodPost, "/graphql", string(body)) },
		func() *http.Request { return request(http.MethodGet, "/users/"+id, "") },
	}
}

// newServer builds the HTTP server in the order of server.go; only the feed runs.
func newServer(tb testing.TB, env app.Env) (*httpd.Server, *store.DB, graph.Domains) {
	tb.Helper()
	ctx := tb.Context()
	db := must(app.OpenDatabase(ctx, env, true))(tb)
	tb.Cleanup(func() { _ = db.Close() })
	sealer := must(app.OpenSecrets(ctx, env, db))(tb)
	feed, closeFeed, err := app.OpenFeed(env, db)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = closeFeed() })
	runFeed(tb, feed)
	caches := must(app.OpenCache(env, db, sealer, feed.Hub))(tb)
	events := must(app.NewSecurityLog(env, db))(tb)
	db = app.WithWriteHooks(db, caches, feed, events)
	tb.Cleanup(func() { _ = caches.Close() })
	sessions := must(app.NewSessions(env, db, sealer, feed.Hub, events))(tb)
	guard := must(app.NewGuard(env, "127.0.0.1:8080"))(tb)
	registry := must(app.NewRegistry(ctx, env, db, feed.Hub, sealer, guard, app.NewOwner()))(tb)
	db = app.WithRevocations(db, func() *session.Service { return sessions })
	domains := app.NewDomains(env, db, caches, feed.Hub, sessions, registry)
	memory := app.NewMemory(env)
	exec := must(app.NewExecutor(env, domains, sealer, memory, events))(tb)
	usage := must(app.NewLegacyUsage(env, db))(tb)
	routes, err := app.NewREST(env, db, exec, usage, events)
	if err != nil && strings.Contains(err.Error(), "BACKPLANE_LIMIT_") {
		tb.Skip("refused in words: a limit leaves no room for the routes' own operations")
	}
	must(routes, err)(tb)
	gateway := must(app.NewGateway(env, guard, registry, sessions, events))(tb)
	return must(app.NewHTTP(env, exec, routes, gateway, sessions, domains.Registry, app.NewHealth(db, feed), &app.Payments{}, memory, events, usage))(tb), db, domains
}

// runFeed runs the feed until the test ends.
func runFeed(tb testing.TB, feed *eventlog.Pipeline) {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)
	go func() { done <- feed.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the feed ended with %v", err)
		}
	})
}

// must returns a function that returns the value, or ends the test on err.
func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// createUser creates a user with an API key.
func createUser(tb testing.TB, db *store.DB, domains graph.Domains) (id, key string) {
	tb.Helper()
	ctx := tb.Context()
	_, err := domains.Users.FirstAdmin(ctx, "ada", func(context.Context, []string) (user.PasswordHash, error) { return "", nil })
	if err != nil {
		tb.Fatal(err)
	}
	u := must(db.Users().ByUsername(ctx, "ada"))(tb)
	_, key, err = domains.Sessions.IssueAPIKey(ctx, u.ID, session.CreateAPIKeyInput{Name: "cost", Scopes: []auth.Scope{auth.UsersRead}})
	if err != nil {
		tb.Fatal(err)
	}
	return string(u.ID), key
}

// BenchmarkUser compares GET /users/{id} with the GraphQL query that it stands for.
func BenchmarkUser(b *testing.B) {
	d := newDuplicates(b)
	for name, request := range map[string]func() *http.Request{"graphql": d.graphql, "rest": d.rest} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				d.handler.ServeHTTP(w, request())
				if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ada"`) {
					b.Fatalf("got %d %s", w.Code, w.Body)
				}
			}
		})
	}
}
