package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"backplane/internal/testenv"
)

const (
	followAges = `subscription($after: Cursor) { events(after: $after, types: [PRODUCT_UPDATED]) { cursor occurredAt data } }`
	describe   = `mutation($id: ID!, $text: String!) { updateProduct(input: {id: $id, description: $text}) { userErrors { code } } }`
)

// ear is a listener that notes what it hears and how old that was.
type ear struct {
	l       listener
	resume  func(after string) listener // opens another connection when one ends; nil for who then listens no more
	heard   atomic.Int64
	mu      sync.Mutex
	cursors []string
	ages    []time.Duration
}

// hear listens until the connection ends, with a pause before each message. Who
// resumes goes on behind the last event that it heard.
func (e *ear) hear(t *testing.T, between func()) {
	for {
		between()
		m, err := e.l.next()
		if ended := err != nil || m.end != ""; ended && (e.resume == nil || t.Context().Err() != nil) {
			return
		} else if ended {
			e.l = e.resume(e.cursors[len(e.cursors)-1])
			continue
		}
		at, _ := time.Parse(time.RFC3339Nano, text(m.field, "occurredAt"))
		e.mu.Lock()
		e.cursors, e.ages = append(e.cursors, m.cursor), append(e.ages, time.Since(at))
		e.mu.Unlock()
		e.heard.Add(1)
	}
}

// takeP99 returns the 99th percentile of what was noted, and forgets it.
func takeP99(ears []*ear) time.Duration {
	var all []time.Duration
	for _, e := range ears {
		e.mu.Lock()
		all, e.ages = append(all, e.ages...), nil
		e.mu.Unlock()
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// publish changes the product n times, by a few writers at a time, and waits until
// the ears have heard it all.
func publish(t *testing.T, c caller, product, text string, n int, ears []*ear) {
	t.Helper()
	before := ears[0].heard.Load()
	var wg sync.WaitGroup
	var turn atomic.Int64
	for range 4 {
		wg.Go(func() {
			for i := turn.Add(1); i <= int64(n); i = turn.Add(1) {
				a, err := c.send(t.Context(), describe, map[string]any{"id": product, "text": fmt.Sprint(text, i, before)})
				if err != nil || len(a.Errors) > 0 || at(a.Data, "updateProduct", "userErrors", 0) != nil {
					t.Errorf("updateProduct gave %+v, %v", a, err)
					return
				}
			}
		})
	}
	wg.Wait()
	within(t, 5*time.Minute, "all have heard it", func() bool {
		return !slices.ContainsFunc(ears, func(e *ear) bool { return e.heard.Load() < before+int64(n) })
	})
}

// TestServer_slow_listener_costs_nobody_anything has more sent to a client that
// reads a message a second than all buffers on the way hold.
// The server cuts who takes nothing for the time of a write; it then resumes.
func TestServer_slow_listener_costs_nobody_anything(t *testing.T) { //nolint:paralleltest // it measures time and memory
	if testing.Short() {
		t.Skip("short run")
	}
	p := start(t, databases["SQLite"](t))
	root := admin(t, p)
	product := createProduct(t, root, "TEA", 1)
	after := map[string]any{"after": root.head(t)}
	long := strings.Repeat("€", 4800) // 14.4 KB
	var quick []*ear
	for i := range 10 {
		e := &ear{l: listen(t, []string{"socket", "event stream"}[i%2], root, followAges, after)}
		quick = append(quick, e)
		go e.hear(t, func() {})
	}
	few := size(150, 2000)
	publish(t, root, product, long, few, quick)
	alone, memory := takeP99(quick), resident(t, p)

	var slow []*ear
	hurry := make(chan struct{})
	for range 2 {
		for transport := range transports {
			e := &ear{l: listen(t, transport, root, followAges, after), resume: func(last string) listener {
				return listen(t, transport, root, followAges, map[string]any{"after": last})
			}}
			slow = append(slow, e)
			go e.hear(t, func() {
				select {
				case <-hurry:
				case <-time.After(time.Second):
				}
			})
		}
	}
	many := size(1500, 30_000) // 22 MB, which is more than the ring holds, or 430 MB
	start := time.Now()
	publish(t, root, product, long, many, quick)
	rate := float64(many) / time.Since(start).Seconds()
	beside, grown := takeP99(quick), resident(t, p)-memory
	t.Logf("at %.0f events/s the p99 of others is %v, alone it was %v; the server grew by %d MiB", rate, beside, alone, grown>>20)
	for _, e := range slow {
		if n := e.heard.Load(); n > int64(time.Since(start).Seconds())+2 {
			t.Fatalf("a slow listener has heard %d events, want one a second", n)
		}
	}
	if limit := 3*alone + 250*time.Millisecond; beside > limit {
		t.Errorf("the p99 of others is %v beside slow listeners, want at most %v", beside, limit)
	}
	if grown > 128<<20 {
		t.Errorf("the server grew by %d MiB, want no more than its caches", grown>>20)
	}
	close(hurry)
	within(t, 10*time.Minute, "the slow ones have caught up", func() bool {
		return !slices.ContainsFunc(slow, func(e *ear) bool { return e.heard.Load() < int64(few+many) })
	})
	for i, e := range slow {
		if !slices.Equal(e.cursors, quick[0].cursors) {
			t.Errorf("slow listener %d heard %d events, and not the %d of the others in their order", i, len(e.cursors), len(quick[0].cursors))
		}
	}
}

// resident returns the bytes that the process has in memory.
func resident(t *testing.T, p *testenv.Process) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "status"))
	if err != nil {
		t.Skip("there is no /proc to see memory in")
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

func TestServer_replays_a_long_log_while_it_grows(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, database string) {
		seeded := size(3500, 35_000)
		runCommand(t, database, "migrate")
		runCommand(t, database, "seed", "--users", "200", "--orders", strconv.Itoa(seeded), "--lines", "2")
		s := openShop(t, testenv.Server(t, settings(database)...), 3, 1_000_000, 3)
		timeline, _, _ := strings.Cut(s.root.head(t), ".")
		a := &audience{t: t, nodes: []caller{s.root}, from: timeline + ".0"}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errors.New("the replay did not end"))
		defer cancel()
		var over atomic.Bool
		done := make(chan *ledger, 1)
		go func() { done <- s.rush(ctx, 4, func(int) bool { return !over.Load() }, never) }()
		for range size(1, 5) {
			a.listen("event stream")
			a.listen("socket")
		}
		past := number(s.root.do(t, `{ events(first: 0) { totalCount } }`, nil), "events", "totalCount")
		a.await(past + 20) // over the seam
		over.Store(true)
		l := <-done
		events := s.root.logAfter(t, a.from, seeded+len(l.placed))
		if len(events) < size(10_000, 100_000) {
			t.Errorf("the log has %d events, too few for this test", len(events))
		}
		a.check(events)
	})
}
