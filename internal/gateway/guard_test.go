package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/registry"
)

func TestGuard_allows_and_refuses_addresses(t *testing.T) {
	t.Parallel()
	ten := Policy{Private: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	all := Policy{AllPrivate: true}
	tests := []struct {
		addr                 string
		nothing, some, every bool // may be called under no private network, 10.1/16, all
	}{
		{"93.184.216.34", true, true, true},
		{"2606:2800:220:1::1", true, true, true},
		{"10.1.2.3", false, true, true},
		{"10.2.2.3", false, false, true},
		{"127.0.0.1", false, false, true},
		{"::1", false, false, true},
		{"192.168.1.1", false, false, true},
		{"100.64.1.1", false, false, true},
		{"fd12::1", false, false, true},
		{"fec0::1", false, false, true},
		{"::ffff:10.1.2.3", false, true, true},
		{"64:ff9b::a01:203", false, true, true}, // 10.1.2.3 behind a translator
		{"2002:a01:203::1", false, true, true},
		{"::ffff:169.254.169.254", false, false, false},
		{"64:ff9b::a9fe:a9fe", false, false, false},
		{"169.254.169.254", false, false, false},
		{"169.254.1.1", false, false, false},
		{"fe80::1", false, false, false},
		{"fd00:ec2::254", false, false, false},
		{"fd20:ce::254", false, false, false},
		{"64:ff9b:1::a01:203", false, false, false},
		{"64:ff9b:1::a9fe:a9fe", false, false, false},
		{"100.100.100.200", false, false, false},
		{"0.0.0.0", false, false, false},
		{"0.1.2.3", false, false, false},
		{"::", false, false, false},
		{"224.0.0.1", false, false, false},
		{"255.255.255.255", false, false, false},
		{"ff02::1", false, false, false},
	}
	for _, tt := range tests {
		to := netip.AddrPortFrom(netip.MustParseAddr(tt.addr), 80)
		for name, c := range map[string]struct {
			policy Policy
			want   bool
		}{"no private network": {Policy{}, tt.nothing}, "one": {ten, tt.some}, "all": {all, tt.every}} {
			if err := newGuard(t, c.policy, nil).checkAddress(t.Context(), to); (err == nil) != c.want {
				t.Errorf("%s under %s: %v, want allowed %v", tt.addr, name, err, c.want)
			}
		}
	}
}

func TestGuard_denies_own_listeners_by_any_of_their_addresses(t *testing.T) {
	t.Parallel()
	configured := []string{"127.0.0.1:9090", ":9090", "0.0.0.0:9090", "localhost:9090", "[::1]:9090"}
	for _, ip := range ownAddresses() { // a Redis that listens on every address may be configured by any
		if !ip.IsLinkLocalUnicast() { // which no call reaches
			configured = append(configured, netip.AddrPortFrom(ip, 9090).String())
		}
	}
	for _, own := range configured {
		g := newGuard(t, Policy{AllPrivate: true, Denied: []string{own}}, nil)
		for _, to := range []string{"127.0.0.1:9090", "[::1]:9090", "[::ffff:127.0.0.1]:9090", "127.0.0.2:9090", "127.255.255.254:9090", "[::ffff:127.9.9.9]:9090", "[64:ff9b::7f00:2]:9090"} {
			if err := g.checkAddress(t.Context(), netip.MustParseAddrPort(to)); err == nil {
				t.Errorf("with %s refused, %s may be called", own, to)
			}
		}
		if err := g.checkAddress(t.Context(), netip.MustParseAddrPort("127.0.0.1:9091")); err != nil {
			t.Errorf("with %s refused, another port may not be called: %v", own, err)
		}
	}
	if _, err := NewGuard(Policy{Denied: []string{"nonsense"}}, nil); err == nil {
		t.Error("NewGuard takes what is no address")
	}
}

// startDNS answers every question for an address with the next of the answers, the
// last again and again.
func startDNS(t *testing.T, answers ...[4]byte) (*net.Resolver, *atomic.Int64) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	asked := &atomic.Int64{}
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(dnsAnswer(buf[:n], answers, asked), from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}, asked
}

// dnsAnswer makes the reply to a query of one question, as RFC 1035 lays it out.
func dnsAnswer(query []byte, answers [][4]byte, asked *atomic.Int64) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	question := query[12 : end+5]
	reply := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if query[end+2] != 1 { // only addresses of version 4 are known
		return reply
	}
	n := asked.Add(1) - 1
	reply[7] = 1
	reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
	ip := answers[min(int(n), len(answers)-1)]
	return append(reply, ip[:]...)
}

func TestGuard_checks_the_address_that_is_dialled(t *testing.T) {
	t.Parallel()
	var called atomic.Int64
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called.Add(1) }))
	t.Cleanup(secret.Close)
	_, port, _ := net.SplitHostPort(secret.Listener.Addr().String())
	resolver, asked := startDNS(t, [4]byte{198, 51, 100, 7}, [4]byte{127, 0, 0, 1})
	// A check of the name comes to a public address; by the time of the call it is ours.
	first, err := resolver.LookupNetIP(t.Context(), "ip4", "rebind.example")
	if err != nil || !first[0].IsGlobalUnicast() {
		t.Fatalf("the first answer is %v, %v", first, err)
	}
	_, err = NewProber(newGuard(t, Policy{}, resolver)).Probe(t.Context(), "http://rebind.example:"+port+"/", 5*time.Second)
	if !errors.Is(err, ErrDenied) || called.Load() != 0 || asked.Load() < 2 {
		t.Errorf("Probe = %v after %d look-ups, with %d calls to a refused address", err, asked.Load(), called.Load())
	}
	if _, err := NewProber(newGuard(t, Policy{AllPrivate: true}, resolver)).Probe(t.Context(), "http://rebind.example:"+port+"/", 5*time.Second); err != nil || called.Load() != 1 {
		t.Errorf("where loopback may be called: %v, %d calls", err, called.Load())
	}
}

func TestProber_does_not_follow_redirects(t *testing.T) {
	t.Parallel()
	var called atomic.Int64
	secret := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called.Add(1) }))
	t.Cleanup(secret.Close)
	public := httptest.NewServer(http.RedirectHandler(secret.URL, http.StatusFound))
	t.Cleanup(public.Close)
	if _, err := NewProber(newGuard(t, Policy{AllPrivate: true}, nil)).Probe(t.Context(), public.URL, 5*time.Second); err != nil || called.Load() != 0 {
		t.Errorf("Probe = %v, and followed a redirect %d times", err, called.Load())
	}
}

func TestProber_describes_failures_briefly(t *testing.T) {
	t.Parallel()
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			select {
			case <-block:
			case <-r.Context().Done():
			}
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		case "/broken":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	closed := httptest.NewServer(nil)
	closed.Close()
	private := httptest.NewUnstartedServer(http.NotFoundHandler())
	private.Config.ErrorLog = log.New(io.Discard, "", 0)
	private.StartTLS() // its certificate is its own
	t.Cleanup(private.Close)
	p := NewProber(newGuard(t, Policy{AllPrivate: true}, nil))
	for url, want := range map[string]string{
		s.URL + "/": "", s.URL + "/endless": "", s.URL + "/broken": "status 503", s.URL + "/slow": "no answer within 300ms",
		private.URL: "TLS failed: the certificate is signed by an authority that this server does not know (SSL_CERT_FILE)",
		strings.Replace(s.URL, "http:", "https:", 1): "TLS failed: it answers without TLS",
		closed.URL: "no connection or no answer", "http://169.254.169.254/latest": ErrDenied.Error(),
	} {
		got, limit := "", 10*time.Second
		if strings.HasSuffix(url, "/slow") {
			limit = 300 * time.Millisecond
		}
		_, err := p.Probe(t.Context(), url, limit)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("Probe(%s) = %q, want %q", url, got, want)
		}
		if refused := errors.Is(err, registry.ErrRefused); refused != (url == closed.URL) {
			t.Errorf("Probe(%s) reports a refused connection: %v", url, refused)
		}
	}
}

func TestProber_returns_the_status_with_a_text(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Content-Type", q.Get("type"))
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, strings.Repeat("x", 3000))
	}))
	t.Cleanup(s.Close)
	p := NewProber(newGuard(t, Policy{AllPrivate: true}, nil))
	for media, withBody := range map[string]bool{"text/plain; charset=utf-8": true, "application/health+json": true, "application/json": true, "text/html": false, "image/png": false, "": false} {
		want := "status 418"
		if withBody {
			want += ": " + strings.Repeat("x", maxProbeOutput)
		}
		if got, err := p.Probe(t.Context(), s.URL+"/?type="+url.QueryEscape(media), 10*time.Second); got != want || err == nil || err.Error() != "status 418" {
			t.Errorf("the output of a body of %q is %.40q of %d bytes, %v", media, got, len(got), err)
		}
	}
}
