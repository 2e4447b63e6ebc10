package graph_test

import (
	"fmt"
	"testing"

	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/testenv"
)

const fiftyOrders = `{ orders(first: 50) { nodes { number status user { username } items { quantity product { name } } } } }`

// BenchmarkRequest runs whole requests, with everything read from the database and
// with what the process holds. Compare within one run.
func BenchmarkRequest(b *testing.B) {
	url := testenv.SQLite(b)
	cold := newServer(b, url)
	cold.fill(b, demo.Size{Users: 120, Orders: 300, Lines: 3})
	warm := newServer(b, url, holding)
	var ids []any
	for _, n := range cold.ask(b, staff, `{ users(first: 100) { nodes { id } } }`, nil)["users"].(map[string]any)["nodes"].([]any) {
		ids = append(ids, n.(map[string]any)["id"])
	}
	for _, bb := range []struct {
		name, query string
		vars        map[string]any
	}{
		{"user", `query($id: ID!) { user(id: $id) { username email } }`, map[string]any{"id": ids[0]}},
		{"nodes of 100", `query($ids: [ID!]!) { nodes(ids: $ids) { ... on User { username email } } }`, map[string]any{"ids": ids}},
		{"50 orders", fiftyOrders, nil},
	} {
		for _, from := range []struct {
			name string
			s    *server
		}{{"miss", cold}, {"hit", warm}} {
			b.Run(fmt.Sprintf("%s %s", bb.name, from.name), func(b *testing.B) {
				b.ReportAllocs()
				from.s.run(b, staff, bb.query, bb.vars)
				from.s.take()
				for b.Loop() {
					from.s.run(b, staff, bb.query, bb.vars)
				}
				b.ReportMetric(float64(len(from.s.take()))/float64(b.N), "statements/op")
			})
		}
	}
}
