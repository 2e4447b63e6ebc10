package main

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/user"
)

// maxCost is how many times the CPU of the GraphQL query a route may take.
const maxCost = 1.3

// twins are the same read by GraphQL and by a route, of a whole server in this
// process.
type twins struct {
	handler       http.Handler
	graphql, rest func() *http.Request
}

func newTwins(tb testing.TB) twins {
	tb.Helper()
	database := "BACKPLANE_DATABASE_URL=sqlite:" + filepath.Join(tb.TempDir(), "cost.db")
	cfg, err := config.FromEnv([]string{database, "BACKPLANE_LOG_LEVEL=error"}, flag.NewFlagSet("", flag.ContinueOnError), nil)
	if err != nil {
		tb.Fatal(err)
	}
	a := &app{cfg: cfg, out: io.Discard, log: newLog(cfg, io.Discard)}
	n, err := newNode(tb.Context(), a, true)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = n.db.Close() })
	feed, closeFeed, err := n.openFeed(a)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = closeFeed() })
	used, err := legacy.NewCounter(n.db.LegacyUsage(), now, a.log, legacy.CounterConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	reg, err := n.openRegistry(tb.Context(), a, feed)
	if err != nil {
		tb.Fatal(err)
	}
	server, err := n.handler(a, feed.Hub, used, reg)
	if err != nil {
		tb.Fatal(err)
	}
	id, key := n.somebody(tb)
	body, err := json.Marshal(map[string]any{
		"query": "query($id: ID!) { user(id: $id) { id username email } }", "variables": map[string]any{"id": id},
	})
	if err != nil {
		tb.Fatal(err)
	}
	request := func(method, target, body string) *http.Request {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Content-Type", "application/json")
		return r
	}
	return twins{
		server.Handler(),
		func() *http.Request { return request(http.MethodPost, "/graphql", string(body)) },
		func() *http.Request { return request(http.MethodGet, "/users/"+id, "") },
	}
}

// somebody returns a user and an API key for it.
func (n *node) somebody(tb testing.TB) (id, key string) {
	tb.Helper()
	ctx := tb.Context()
	_, err := n.users.FirstAdmin(ctx, "ada", func(context.Context) (user.Credential, error) { return "", nil })
	if err != nil {
		tb.Fatal(err)
	}
	u, err := n.db.Users().ByUsername(ctx, "ada")
	if err != nil {
		tb.Fatal(err)
	}
	_, key, err = n.sessions.IssueAPIKey(ctx, u.ID, session.CreateAPIKeyInput{Name: "cost", Scopes: []auth.Scope{auth.UsersRead}})
	if err != nil {
		tb.Fatal(err)
	}
	return string(u.ID), key
}

// serve answers n requests and returns the CPU that the process took meanwhile.
func (tw twins) serve(tb testing.TB, request func() *http.Request, n int) time.Duration {
	tb.Helper()
	before := cpu(tb)
	for range n {
		w := httptest.NewRecorder()
		tw.handler.ServeHTTP(w, request())
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ada"`) {
			tb.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	return cpu(tb) - before
}

func cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestREST_costs_little_more_than_GraphQL takes the best of several rounds of each,
// in turn. It runs alone, since it measures the CPU of the whole process.
func TestREST_costs_little_more_than_GraphQL(t *testing.T) { //nolint:paralleltest // see above
	if testing.Short() {
		t.Skip("short run")
	}
	tw := newTwins(t)
	tw.serve(t, tw.graphql, 200) // warm
	tw.serve(t, tw.rest, 200)
	best := func(have, next time.Duration) time.Duration {
		if have == 0 || next < have {
			return next
		}
		return have
	}
	var graphql, rest time.Duration
	for range 10 {
		graphql = best(graphql, tw.serve(t, tw.graphql, 300))
		rest = best(rest, tw.serve(t, tw.rest, 300))
	}
	ratio := float64(rest) / float64(graphql)
	t.Logf("GET /users/{id} takes %.2f times the CPU of the GraphQL query (%v and %v for 300)", ratio, rest, graphql)
	if ratio > maxCost {
		t.Errorf("a route costs %.2f times the GraphQL query, want at most %.1f", ratio, maxCost)
	}
}

func BenchmarkUser(b *testing.B) {
	tw := newTwins(b)
	for name, request := range map[string]func() *http.Request{"graphql": tw.graphql, "rest": tw.rest} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				tw.handler.ServeHTTP(httptest.NewRecorder(), request())
			}
		})
	}
}
