package graph_test

import (
	"testing"

	"backplane/internal/seed"
	"backplane/internal/testenv"
)

const fiftyOrders = `{ orders(first: 50) { nodes { number status user { username } items { quantity product { name } } } } }`

func BenchmarkRequest(b *testing.B) {
	s := newServer(b, testenv.SQLite(b))
	s.fill(b, seed.Size{Users: 100, Orders: 200, Lines: 3})
	n := 0
	for b.Loop() {
		s.run(b, staff, fiftyOrders, nil)
		n += len(s.take())
	}
	b.ReportMetric(float64(n)/float64(b.N), "statements/op")
}
