package httpd

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
)

func TestServer_middleware_is_in_order(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	x, err := executor.New(executortest.New(nil, nil, nil), executor.Config{}, log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{}, x, Deps{}, log)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := s.middleware()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range chain {
		got = append(got, m.name)
	}
	want := []string{
		"request id", "client deadlines", "close while stopping", "access log", "recover panic", "security headers", "max header bytes",
		"HTTP version", "host", "CORS", "cross-origin", "gateway", "gzip", "drain body",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("middleware (-want +got):\n%s", diff)
	}
}
