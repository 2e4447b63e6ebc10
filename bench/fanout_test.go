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

	"backplane/internal/testenv"
)

const (
	login, password = "root", "correct horse battery staple"
	follow          = `subscription { events(after: %q, types: [PRODUCT_STOCK_CHANGED]) { cursor type occurredAt subjectId data } }`

	burst = 100                   // events sent as fast as they can be
	paced = 60                    // events sent one by one
	pace  = 50 * time.Millisecond // between them
)

// target is a server whose listeners are measured.
type target struct {
	name    string
	addr    string
	pid     int
	listen  func(b *testing.B) *listener
	publish func() error // sends one event to all listeners
}

// BenchmarkFanOut compares how fast sockets and event streams with equal
// subscriptions get events with a bare broadcast of the same bytes.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for range b.N {
				compare(b, n)
			}
		})
	}
}

func compare(b *testing.B, n int) {
	sample := ""
	rates := map[string]float64{}
	for _, open := range []func(b *testing.B, sample *string) *target{openSockets, openBare, openEvents} {
		tg := open(b, &sample)
		before := memory(b, tg.pid)
		a := gather(b, tg, n)
		b.ReportMetric(float64(memory(b, tg.pid)-before)/float64(n)/1024, tg.name+"-KiB/listener")
		rates[tg.name] = a.burst(b, tg)
		b.ReportMetric(rates[tg.name], tg.name+"-deliveries/s")
		p50, p99 := a.paced(b, tg)
		b.ReportMetric(float64(p50.Microseconds())/1000, tg.name+"-p50-ms")
		b.ReportMetric(float64(p99.Microseconds())/1000, tg.name+"-p99-ms")
		sample = string(a.listeners[0].last)
		a.leave()
	}
	b.ReportMetric(rates["socket"]/rates["bare"], "socket/bare")
	b.ReportMetric(rates["events"]/rates["bare"], "events/bare")
}

// audience is many listeners to one target.
type audience struct {
	listeners []*listener
	heard     atomic.Int64
	lost      atomic.Int64
	all       sync.WaitGroup

	mu    sync.Mutex
	times []time.Duration
}

func gather(b *testing.B, tg *target, n int) *audience {
	b.Helper()
	a := &audience{}
	for range n {
		a.listeners = append(a.listeners, tg.listen(b))
	}
	for i, l := range a.listeners {
		a.all.Go(func() { a.count(l, i%10 == 0) })
	}
	a.await(b, tg.publish, 1) // all have subscribed once all have heard something
	return a
}

// count counts what a listener hears; of some, also how old it was then.
func (a *audience) count(l *listener, timed bool) {
	for {
		message, err := l.next(l.in)
		if err != nil {
			a.lost.Add(1)
			return
		}
		a.heard.Add(1)
		if timed {
			age := time.Since(sentAt(message))
			a.mu.Lock()
			a.times = append(a.times, age)
			l.last = append(l.last[:0], message...)
			a.mu.Unlock()
		}
	}
}

// await publishes n events and waits until everybody has heard them all.
func (a *audience) await(b *testing.B, publish func() error, n int) {
	b.Helper()
	want := a.heard.Load() + int64(n*len(a.listeners))
	var all sync.WaitGroup
	turns := make(chan struct{}, n)
	for range n {
		turns <- struct{}{}
	}
	close(turns)
	for range 4 {
		all.Go(func() {
			for range turns {
				if err := publish(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	for end := time.Now().Add(2 * time.Minute); a.heard.Load() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) || a.lost.Load() > 0 {
			b.Fatalf("%d deliveries of %d are missing, and %d listeners", want-a.heard.Load(), want, a.lost.Load())
		}
	}
}

func (a *audience) burst(b *testing.B, tg *target) (rate float64) {
	start := time.Now()
	a.await(b, tg.publish, burst)
	return float64(burst*len(a.listeners)) / time.Since(start).Seconds()
}

// paced returns how old events were when they were heard.
func (a *audience) paced(b *testing.B, tg *target) (p50, p99 time.Duration) {
	a.mu.Lock()
	a.times = nil
	a.mu.Unlock()
	for range paced {
		next := time.Now().Add(pace)
		a.await(b, tg.publish, 1)
		time.Sleep(time.Until(next))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.Sort(a.times)
	return a.times[len(a.times)/2], a.times[len(a.times)*99/100]
}

func (a *audience) leave() {
	for _, l := range a.listeners {
		_ = l.conn.Close()
	}
	a.all.Wait()
}

func openSockets(b *testing.B, _ *string) *target { return openServer(b, "socket", bySocket) }
func openEvents(b *testing.B, _ *string) *target  { return openServer(b, "events", byEvents) }

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
	from := fmt.Sprintf(follow, pick(ask(b, tg.addr, token, `{ eventCursor }`), "eventCursor")) // who subscribes late misses nothing
	tg.listen = func(b *testing.B) *listener { b.Helper(); return listen(b, tg.addr, token, from) }
	tg.publish = func() error {
		_, err := post(tg.addr, token, add)
		return err
	}
	return tg
}

// openBare starts the server to compare with; an event is the message that our
// server sent last, with another time.
func openBare(b *testing.B, sample *string) *target {
	b.Helper()
	tg := &target{name: "bare"}
	tg.addr, tg.pid = startBare(b)
	tg.listen = func(b *testing.B) *listener { b.Helper(); return bySocket(b, tg.addr, "", "") }
	then := sentAt([]byte(*sample)).Format("2006-01-02T15:04:05.999999Z07:00")
	tg.publish = func() error {
		message := strings.Replace(*sample, then, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z07:00"), 1)
		resp, err := http.Post("http://"+tg.addr+"/graphql", "text/plain", strings.NewReader(message)) //nolint:noctx // it lives as long as the benchmark
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
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/graphql", bytes.NewReader(body)) //nolint:noctx // it lives as long as the benchmark
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
