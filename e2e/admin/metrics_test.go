package admin_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestAdmin_shows_cache_metrics(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	testenv.Server(t, "BACKPLANE_ADMIN_LISTEN="+addr, "BACKPLANE_REDIS_URL="+testenv.Redis(t))
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	for _, want := range []string{`backplane_cache_hits_total{level="process",entity="user"}`, "backplane_cache_redis_errors_total 0", "process_cpu_seconds_total"} {
		if err != nil || !strings.Contains(string(body), want) {
			t.Errorf("/metrics does not tell of %s (%v)", want, err)
		}
	}
}
