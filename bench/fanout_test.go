package bench_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

const (
	login, password = "root", "correct horse battery staple"
	follow          = `subscription { events(after: %q, types: [PRODUCT_STOCK_CHANGED]) { cursor type occurredAt subjectId data } }`

	burst = 50_000                // deliveries of events that are sent as fast as they can be, in one round
	paced = 60_000                // deliveries of events that are sent one by one
	pace  = 50 * time.Millisecond // between them
)

// target is a server whose listeners are measured.
type target struct {
	name    string
	addr    string
	pid     int
	listen  func(b *testing.B) *listener
	publish func() error // sends one event to all listeners

	listeners []*listener
	received  atomic.Int64
	lost      atomic.Int64
	all       sync.WaitGroup

	mu   sync.Mutex
	ages []time.Duration // of what some have received
}

// BenchmarkFanOut compares how fast sockets and event streams with equal
// subscriptions get events with a bare broadcast of the same bytes: deliveries/s
// when as many are sent as can be, and how old events are when they are received if
// they come one by one. RSS is what the process grew by for each listener of the
// second half, with what it had not yet given back.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				compare(b, n)
			}
		})
	}
}

const (
	rounds  = 5
	maxOpen = 18_000 // connections at the same time, below the usual limit of files
)

// compare takes turns between the targets if all their listeners can be there at
// the same time, so that all of them meet the same weather.
func compare(b *testing.B, n int) {
	opens := []func(b *testing.B, sample string) *target{openSockets, openBare, openEvents}
	together := len(opens)
	if together*n > maxOpen {
		together = 1
	}
	sample, rates := "", map[string][]float64{}
	for some := range slices.Chunk(opens, together) {
		var there []*target
		for _, open := range some {
			tg := open(b, sample)
			gather(b, tg, n)
			sample = tg.listeners[0].message()
			there = append(there, tg)
		}
		for range rounds {
			for _, tg := range there {
				rates[tg.name] = append(rates[tg.name], tg.burst(b))
			}
		}
		for _, tg := range there {
			tg.paced(b)
			tg.leave()
		}
	}
	for _, name := range []string{"socket", "bare", "events"} {
		b.ReportMetric(median(rates[name]), name+"-deliveries/s")
		ratios := make([]float64, rounds)
		for i, rate := range rates[name] {
			ratios[i] = rate / rates["bare"][i]
		}
		if name != "bare" {
			b.ReportMetric(median(ratios), name+"/bare")
		}
	}
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// gather opens the listeners of a target; all have subscribed when it returns.
func gather(b *testing.B, tg *target, n int) {
	b.Helper()
	half := 0
	for i := range n {
		if i == n/2 {
			half = memory(b, tg.pid)
		}
		tg.listeners = append(tg.listeners, tg.listen(b))
	}
	for i, l := range tg.listeners {
		tg.all.Go(func() { tg.count(l, i%10 == 0) })
	}
	tg.await(b, 1)
	b.ReportMetric(float64(memory(b, tg.pid)-half)/float64(n-n/2)/1024, tg.name+"-RSS-KiB")
}

// count counts the events that a listener receives; of some, also their age.
func (tg *target) count(l *listener, timed bool) {
	for {
		message, err := l.next(l.in)
		if err != nil {
			tg.lost.Add(1)
			return
		}
		if timed {
			age := time.Since(sentAt(message))
			tg.mu.Lock()
			tg.ages = append(tg.ages, age)
			l.last = append(l.last[:0], message...)
			tg.mu.Unlock()
		}
		tg.received.Add(1)
	}
}

// await publishes n events and waits until every subscriber has received them all.
func (tg *target) await(b *testing.B, n int) {
	b.Helper()
	want := tg.received.Load() + int64(n*len(tg.listeners))
	var all sync.WaitGroup
	var sent atomic.Int64
	for range 4 {
		all.Go(func() {
			for sent.Add(1) <= int64(n) {
				if err := tg.publish(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	for end := time.Now().Add(2 * time.Minute); tg.received.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) || tg.lost.Load() > 0 {
			b.Fatalf("%s: %d deliveries of %d are missing, and %d listeners", tg.name, want-tg.received.Load(), want, tg.lost.Load())
		}
	}
}

// burst returns how many events all listeners got in a second.
func (tg *target) burst(b *testing.B) (rate float64) {
	b.Helper()
	start := time.Now()
	events := burst / len(tg.listeners)
	tg.await(b, events)
	return float64(events*len(tg.listeners)) / time.Since(start).Seconds()
}

// paced reports the age of events when they are received.
func (tg *target) paced(b *testing.B) {
	b.Helper()
	tg.mu.Lock()
	tg.ages = nil
	tg.mu.Unlock()
	for range paced / len(tg.listeners) {
		next := time.Now().Add(pace)
		tg.await(b, 1)
		time.Sleep(time.Until(next))
	}
	tg.mu.Lock()
	defer tg.mu.Unlock()
	slices.Sort(tg.ages)
	b.ReportMetric(float64(tg.ages[len(tg.ages)/2].Microseconds())/1000, tg.name+"-p50-ms")
	b.ReportMetric(float64(tg.ages[len(tg.ages)*99/100].Microseconds())/1000, tg.name+"-p99-ms")
}

func (tg *target) leave() {
	for _, l := range tg.listeners {
		_ = l.conn.Close()
	}
	tg.all.Wait()
}

func openSockets(b *testing.B, _ string) *target {
	b.Helper()
	return openServer(b, "socket", bySocket)
}
func openEvents(b *testing.B, _ string) *target { b.Helper(); return openServer(b, "events", byEvents) }

// openServer starts the server; an event is a change of a product's stock.
func openServer(b *testing.B, name string, listen func(b *testing.B, addr, token, query string) *listener) *target {
	b.Helper()
	p := testenv.Server(b, "BACKPLANE_RATE_LIMIT=off", "BACKPLANE_LIMIT_USER_CONNECTIONS=20000", "BACKPLANE_LOG_LEVEL=error",
		"BACKPLANE_ADMIN_USERNAME="+login, "BACKPLANE_ADMIN_PASSWORD="+password)
	tg := &target{name: name, addr: strings.TrimPrefix(p.BaseURL, "http://"), pid: p.PID()}
	signedIn := ask(b, tg.addr, "", fmt.Sprintf(`mutation { signIn(input: {login: %q, password: %q}) { session { accessToken } } }`, login, password))
	token := pick(signedIn, "signIn", "session", "accessToken")
	made := ask(b, tg.addr, token, `mutation { createProduct(input: {sku: "TEA", name: "Tea", price: {amount: "1.00", currency: "EUR"}, stock: 1}) { product { id } } }`)
	add := fmt.Sprintf(`mutation { adjustStock(input: {productId: %q, by: 1}) { userErrors { code } } }`, pick(made, "createProduct", "product", "id"))
	from := fmt.Sprintf(follow, pick(ask(b, tg.addr, token, `{ eventCursor }`), "eventCursor")) // a late subscriber misses nothing
	tg.listen = func(b *testing.B) *listener { b.Helper(); return listen(b, tg.addr, token, from) }
	tg.publish = func() error {
		_, err := post(tg.addr, token, add)
		return err
	}
	return tg
}

// openBare starts the server to compare with; an event is the message that our
// server sent last, with another time.
func openBare(b *testing.B, sample string) *target {
	b.Helper()
	tg := &target{name: "bare"}
	tg.addr, tg.pid = startBare(b)
	tg.listen = func(b *testing.B) *listener { b.Helper(); return bySocket(b, tg.addr, "", "") }
	then := sentAt([]byte(sample)).Format("2006-01-02T15:04:05.999999Z07:00")
	tg.publish = func() error {
		message := strings.Replace(sample, then, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00"), 1)
		resp, err := http.Post("http://"+tg.addr+"/graphql", "text/plain", strings.NewReader(message))
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	return tg
}

// ask sends an operation that must succeed and returns its data.
func ask(b *testing.B, addr, token, query string) map[string]any {
	b.Helper()
	data, err := post(addr, token, query)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func post(addr, token, query string) (data map[string]any, err error) {
	body, err := json.Marshal(map[string]string{"query": query})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/graphql", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data   map[string]any
		Errors []any
	}
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Errors) > 0 {
		return nil, fmt.Errorf("the server answered %s: %w", text, err)
	}
	return answer.Data, nil
}

// pick walks into decoded JSON to a string, empty if there is none.
func pick(v any, path ...string) string {
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	s, _ := v.(string)
	return s
}
