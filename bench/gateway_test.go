package bench_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// What the instance answers: a kilobyte, or very much.
var shortText = strings.Repeat("0123456789abcde\n", 64)

const bulkBytes = 32 << 20

func sendBulk(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", strconv.Itoa(bulkBytes))
	part := make([]byte, 32<<10)
	for range bulkBytes / len(part) {
		if _, err := w.Write(part); err != nil {
			return
		}
	}
}

// way is one way to the same instance.
type way struct {
	name, addr, head string
	perSecond, p99   []float64 // of each round
	bulk             []float64 // bytes per second
}

// BenchmarkGateway calls one instance directly, through the gateway and through
// HAProxy, in turns, and tells the medians and their ratios.
func BenchmarkGateway(b *testing.B) {
	for range b.N {
		ways := openWays(b)
		const rounds = 5
		for range rounds {
			for _, w := range ways {
				w.short(b, 32, 1200*time.Millisecond)
				w.large(b)
			}
		}
		direct := ways[0]
		for _, w := range ways {
			b.ReportMetric(median(w.perSecond), w.name+"-calls/s")
			b.ReportMetric(median(w.p99)*1e3, w.name+"-p99-ms")
			b.ReportMetric(median(w.bulk)/1e6, w.name+"-MB/s")
			if w != direct {
				b.ReportMetric(median(w.perSecond)/median(direct.perSecond), w.name+"/direct-calls")
				b.ReportMetric(median(w.p99)/median(direct.p99), w.name+"/direct-p99")
				b.ReportMetric(median(w.bulk)/median(direct.bulk), w.name+"/direct-bulk")
			}
		}
	}
}

// openWays starts an instance and what stands before it.
func openWays(b *testing.B) []*way {
	b.Helper()
	instance, _ := startBare(b)
	p := testenv.Server(b, "BACKPLANE_RATE_LIMIT=off", "BACKPLANE_LOG_LEVEL=warn", "BACKPLANE_ADMIN_USERNAME=root", "BACKPLANE_ADMIN_PASSWORD=correct horse battery staple")
	addr := strings.TrimPrefix(p.BaseURL, "http://")
	token := pick(ask(b, addr, "", `mutation { signIn(input: {login: "root", password: "correct horse battery staple"}) { session { accessToken } } }`), "signIn", "session", "accessToken")
	ask(b, addr, token, `mutation { registerService(input: {name: "bare"}) { userErrors { code } } }`)
	ask(b, addr, token, fmt.Sprintf(`mutation { registerInstance(input: {service: "bare", instanceId: "1", url: "http://%s", ttl: "10m"}) { userErrors { code } } }`, instance))
	head := "\r\nHost: localhost\r\nAccept: */*\r\nAuthorization: Bearer " + token + "\r\n\r\n"
	return []*way{
		{name: "direct", addr: instance, head: "GET /%s HTTP/1.1" + head},
		{name: "gateway", addr: addr, head: "GET /gateway/bare/%s HTTP/1.1" + head},
		{name: "haproxy", addr: testenv.HAProxy(b, "  option forwardfor\n  option http-keep-alive\n  http-reuse always\n  server one "+instance), head: "GET /%s HTTP/1.1" + head},
	}
}

// short calls for the kilobyte from so many connections at once.
func (w *way) short(b *testing.B, connections int, d time.Duration) {
	b.Helper()
	var mu sync.Mutex
	var all []time.Duration
	var clients sync.WaitGroup
	start := time.Now()
	for range connections {
		clients.Go(func() {
			took, err := w.calls(start.Add(d))
			mu.Lock()
			defer mu.Unlock()
			if all = append(all, took...); err != nil {
				b.Error(w.name, err)
			}
		})
	}
	clients.Wait()
	if len(all) == 0 {
		b.Fatal(w.name, "answered nothing")
	}
	slices.Sort(all)
	w.perSecond = append(w.perSecond, float64(len(all))/time.Since(start).Seconds())
	w.p99 = append(w.p99, all[len(all)*99/100].Seconds())
}

func (w *way) calls(until time.Time) (took []time.Duration, err error) {
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in, request := bufio.NewReaderSize(conn, 4096), []byte(fmt.Sprintf(w.head, "text"))
	for at := time.Now(); at.Before(until); {
		if _, err := conn.Write(request); err != nil {
			return took, err
		}
		if n, err := readAnswer(in); err != nil || n != len(shortText) {
			return took, fmt.Errorf("%d bytes: %w", n, err)
		}
		now := time.Now()
		took, at = append(took, now.Sub(at)), now
	}
	return took, nil
}

// readAnswer reads an answer that says how long it is.
func readAnswer(in *bufio.Reader) (length int, err error) {
	status, err := in.ReadSlice('\n')
	if err != nil || !strings.Contains(string(status), " 200 ") {
		return 0, fmt.Errorf("%s: %w", status, err)
	}
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) == 2 {
			return in.Discard(length)
		}
		name, value, _ := strings.Cut(string(line), ":")
		if strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return 0, err
			}
		}
	}
}

// large takes the long answer once.
func (w *way) large(b *testing.B) {
	b.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	if _, err := fmt.Fprintf(conn, w.head, "bulk"); err != nil {
		b.Fatal(err)
	}
	if n, err := readAnswer(bufio.NewReaderSize(conn, 64<<10)); err != nil || n != bulkBytes {
		b.Fatal(w.name, n, err)
	}
	w.bulk = append(w.bulk, bulkBytes/time.Since(start).Seconds())
}
