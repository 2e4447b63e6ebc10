package app

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/config"
)

func TestListen_warns_of_passwords_over_plain_HTTP(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
	for name, tt := range map[string]struct {
		address string
		proxies []netip.Prefix
		want    bool
	}{
		"this machine alone": {"127.0.0.1:0", nil, false}, "every address": {":0", nil, true}, "every address behind a proxy": {":0", proxies, false},
	} {
		var log bytes.Buffer
		env := Env{Config: config.Config{Listen: tt.address}, Log: slog.New(slog.NewTextHandler(&log, nil))}
		env.Config.HTTP.TrustedProxies = tt.proxies
		ln, err := Listen(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		if got := strings.Contains(log.String(), "passwords and tokens pass over plain HTTP"); got != tt.want {
			t.Errorf("%s: the log is %q, want the warning: %v", name, log.String(), tt.want)
		}
	}
}
