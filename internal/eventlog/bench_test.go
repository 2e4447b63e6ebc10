package eventlog_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// BenchmarkFeed_latency is the time from the begin of a commit to a subscriber,
// for one writer at a time.
func BenchmarkFeed_latency(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": testenv.SQLite, "postgres": testenv.Postgres} {
		for _, where := range []string{"same node", "other node"} {
			b.Run(name+"/"+where, func(b *testing.B) {
				c := startCluster(b, url(b), 2, sound)
				reader, writer := c.nodes[0], c.nodes[0]
				if where == "other node" {
					writer = c.nodes[1]
				}
				s, err := reader.Pipeline.Hub.Subscribe(reader.Ctx, nil, event.Filter{})
				if err != nil {
					b.Fatal(err)
				}
				var times []time.Duration
				var committed time.Time
				writer.DB = writer.DB.WithHooks(store.Hooks{Appended: func() { committed = time.Now(); writer.Pipeline.EventsAppended() }})
				for b.Loop() {
					addUser(b, writer.DB, fmt.Sprint("u", inserted.Add(1)))
					if _, err := s.Next(reader.Ctx); err != nil {
						b.Fatal(err)
					}
					times = append(times, time.Since(committed))
				}
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// BenchmarkHub_fanOut is how many events all subscribers of a hub get together.
func BenchmarkHub_fanOut(b *testing.B) {
	for _, readers := range []int{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(readers), func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			m := eventlogtest.NewMemory()
			h := eventlogtest.NewHub(b, m, eventlog.HubConfig{})
			go func() { _ = h.Run(ctx) }()
			var all sync.WaitGroup
			const perRound = 100
			for range readers {
				s := subscribe(ctx, b, h, &event.Cursor{Timeline: "a"}, event.Filter{})
				go func() {
					got := 0
					for _, err := range eventsOf(ctx, s) {
						if err != nil {
							return
						}
						if got++; got == perRound {
							got = 0
							all.Done()
						}
					}
				}()
			}
			rounds := 0
			for b.Loop() {
				all.Add(readers)
				m.Append(perRound)
				h.Wake()
				all.Wait()
				rounds++
			}
			b.ReportMetric(float64(rounds*perRound*readers)/b.Elapsed().Seconds(), "deliveries/s")
			cancel()
		})
	}
}
