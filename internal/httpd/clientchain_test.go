package httpd_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/httpd"
)

func TestServer_warns_once_of_an_untrusted_proxy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		trusted []netip.Prefix
		want    int
	}{
		"untrusted": {nil, 1},
		"trusted":   {[]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}))
			x, err := executor.New(executortest.New(nil, nil, nil), executor.Config{}, log)
			if err != nil {
				t.Fatal(err)
			}
			s, err := httpd.New(httpd.Config{TrustedProxies: tt.trusted}, x, httpd.Deps{}, log)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				answer(s, request("GET /healthz", "X-Forwarded-For: 203.0.113.9", ""))
			}
			if got := strings.Count(out.String(), "untrusted proxy"); got != tt.want {
				t.Errorf("the log warns %d times of the proxy, want %d:\n%s", got, tt.want, out.String())
			}
			if s.MetUntrustedProxy() != (tt.want > 0) {
				t.Errorf("MetUntrustedProxy = %v", s.MetUntrustedProxy())
			}
		})
	}
}
