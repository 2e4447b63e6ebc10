package config_test

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/writelimit"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md")

func read(environ []string, args ...string) (config.Config, error) {
	flags := map[string]string{}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		flags[strings.TrimPrefix(name, "--")] = value
	}
	return config.FromEnv(environ, flags)
}

func TestFromEnv_Defaults(t *testing.T) {
	t.Parallel()
	got, err := read(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Config{
		Listen: "127.0.0.1:8080", AdminListen: "127.0.0.1:9090", CacheBytes: 64 << 20, StopDelay: 7 * time.Second, AccessTokenTime: 5 * time.Minute, SessionIdleTime: 30 * 24 * time.Hour, SessionTime: 90 * 24 * time.Hour, Database: "sqlite:data/backplane.db", Conns: 11, CredentialConns: 3, RateLimit: true, Introspection: true, PlannedExecutor: true, LogFormat: config.LogText,
		Retention:   eventlog.RetentionConfig{MaxReaderLag: 1_000_000},
		DeadLetters: consumer.DeadLetterConfig{Retention: 90 * 24 * time.Hour},
		Security:    securitylog.Config{Retention: 90 * 24 * time.Hour},
		GraphQL: executor.Limits{
			Tokens: 10_000, Operations: 50, Fields: 3_000, ExpandedFields: 15_000, Fragments: 200, FragmentDepth: 20, Depth: 20,
			Aliases: 100, RootFields: 30, Directives: 200, Complexity: 50_000, Errors: 50, Response: 16 << 20, Time: 10 * time.Second,
		},
		HTTP: httpd.Config{
			BodyBytes: 1 << 20, HeaderBytes: 32 << 10, HeaderTime: 5 * time.Second, BodyTime: 10 * time.Second,
			IdleTime: 2 * time.Minute, WriteTime: 30 * time.Second, DrainTime: 10 * time.Second, Operations: 256, QueueTime: time.Second, MemoryBytes: 256 << 20, OpenConnections: 10_000, AddressConnections: 2_500,
			CORSHeaders: []string{"traceparent", "tracestate", "baggage", "sentry-trace", "apollographql-client-name", "apollographql-client-version", "apollo-require-preflight", "x-requested-with"},
			Streams: connection.Config{
				Connections: 20_000, PerPrincipal: 2_500, Operations: 100, Subscriptions: 40_000, PrincipalSubscriptions: 5_000, MessageBytes: 1 << 20,
				InitTime: 10 * time.Second, IdleTime: 5 * time.Minute, KeepAlive: 15 * time.Second, StallTime: 5 * time.Minute,
			},
		},
		Gateway: gateway.Config{
			ConnectTime: 2 * time.Second, FirstByteTime: 30 * time.Second, IdleTime: 5 * time.Minute, TotalTime: 10 * time.Minute,
			BodyBytes: 100 << 20, Calls: 10_000, CallerCalls: 2_500,
		},
		Writes:       writelimit.Config{User: 50, Address: 250},
		Payments:     payment.Config{Service: "payment-service", Deadline: 24 * time.Hour, Timeout: 10 * time.Second},
		RESTPageSize: 20,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(secrets.MasterKey{})); diff != "" {
		t.Errorf("FromEnv without anything set (-want +got):\n%s", diff)
	}
	if got.SecretKey.IsSet() {
		t.Error("there is a secret key without a setting")
	}
}

func TestFromEnv(t *testing.T) {
	t.Parallel()
	listen := func(c config.Config) any { return c.Listen }
	tests := []struct {
		name    string
		environ []string
		args    []string
		get     func(config.Config) any
		want    any
	}{
		{"takes a variable", []string{"BACKPLANE_LISTEN=:80"}, nil, listen, ":80"},
		{"takes a flag", nil, []string{"--listen=:81"}, listen, ":81"},
		{"prefers a flag", []string{"BACKPLANE_LISTEN=:80"}, []string{"--listen=:81"}, listen, ":81"},
		{"takes an empty variable as not set", []string{"BACKPLANE_LISTEN="}, nil, listen, "127.0.0.1:8080"},
		{"ignores other variables", []string{"LISTEN=:80", "BACKPLANE_TEST_X=1", "BACKPLANE_API_KEY=bpk_x"}, nil, listen, "127.0.0.1:8080"},
		{
			"ignores the variables of Kubernetes for services named backplane",
			[]string{"BACKPLANE_PORT=tcp://10.0.0.1:80", "BACKPLANE_SERVICE_HOST=10.0.0.1", "BACKPLANE_DB_PORT_80_TCP_ADDR=10.0.0.1", "BACKPLANE_SERVICE_PORT_HTTP=80"},
			nil, listen, "127.0.0.1:8080",
		},
		{
			"reads networks and single addresses", []string{"BACKPLANE_TRUSTED_PROXIES=10.1.2.3/8, ::1"}, nil,
			func(c config.Config) any { return fmt.Sprint(c.HTTP.TrustedProxies) }, fmt.Sprint([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}),
		},
		{
			"reads origins", []string{"BACKPLANE_CORS_ORIGINS=https://a.example,http://localhost:3000"}, nil,
			func(c config.Config) any { return strings.Join(c.HTTP.AllowedOrigins, " ") }, "https://a.example http://localhost:3000",
		},
		{"reads headers", []string{"BACKPLANE_CORS_EXPOSED_HEADERS=Server-Timing, X-Total"}, nil, func(c config.Config) any { return strings.Join(c.HTTP.CORSExposedHeaders, " ") }, "Server-Timing X-Total"},
		{"reads any origin", []string{"BACKPLANE_CORS_ORIGINS=*"}, nil, func(c config.Config) any { return strings.Join(c.HTTP.AllowedOrigins, " ") }, "*"},
		{"reads a word that switches on", []string{"BACKPLANE_LEGACY_IDS=assign"}, nil, func(c config.Config) any { return c.AssignLegacyID }, true},
		{"reads a word that switches off", []string{"BACKPLANE_RATE_LIMIT=off"}, nil, func(c config.Config) any { return c.RateLimit }, false},
		{"reads a level", []string{"BACKPLANE_LOG_LEVEL=warn"}, nil, func(c config.Config) any { return c.LogLevel }, slog.LevelWarn},
		{"reads a number", []string{"BACKPLANE_LIMIT_DEPTH=7"}, nil, func(c config.Config) any { return c.GraphQL.Depth }, 7},
		{"reads a time", nil, []string{"--limit-request-time=1m"}, func(c config.Config) any { return c.GraphQL.Time }, time.Minute},
		{
			"reads a secret key", []string{"BACKPLANE_SECRET_KEY=" + strings.Repeat("k", 32)}, nil,
			func(c config.Config) any { return c.SecretKey.IsSet() }, true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := read(tt.environ, tt.args...)
			if got := tt.get(c); got != tt.want || err != nil {
				t.Errorf("FromEnv gave %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestFromEnv_Mistakes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, given, want string
	}{
		{"an address without port", "BACKPLANE_LISTEN=here", `BACKPLANE_LISTEN is "here", but it must be host:port, with a port from 0 to 65535.`},
		{"a port out of range", "BACKPLANE_LISTEN=:65536", `BACKPLANE_LISTEN is ":65536", but it must be host:port, with a port from 0 to 65535.`},
		{"an unknown database", "BACKPLANE_DATABASE_URL=mysql://u:hunter2@h/d", "BACKPLANE_DATABASE_URL is not usable (its value is not shown): it must be sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME; nothing else is supported."},
		{"a file without name", "BACKPLANE_DATABASE_URL=sqlite:", "BACKPLANE_DATABASE_URL is not usable (its value is not shown): it must be sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME; nothing else is supported."},
		{"a weak key", "BACKPLANE_SECRET_KEY=hunter2", "BACKPLANE_SECRET_KEY is not usable (its value is not shown): it must be 32 to 1024 random characters, e.g. made by `openssl rand -base64 32`."},
		{"a network that is none", "BACKPLANE_TRUSTED_PROXIES=10.0.0.0/8,nearby", `BACKPLANE_TRUSTED_PROXIES is "10.0.0.0/8,nearby", but it must be addresses or networks such as 10.0.0.0/8, with commas between them.`},
		{"a header with a colon", "BACKPLANE_CORS_HEADERS=a:", `BACKPLANE_CORS_HEADERS is "a:", but it must be names of headers such as traceparent, with commas between them.`},
		{"an origin with a path", "BACKPLANE_CORS_ORIGINS=https://a.example/", `BACKPLANE_CORS_ORIGINS is "https://a.example/", but it must be * or origins such as https://shop.example, without a path, with commas between them.`},
		{"a word that is neither", "BACKPLANE_RATE_LIMIT=no", `BACKPLANE_RATE_LIMIT is "no", but it must be on or off.`},
		{"an unknown level", "BACKPLANE_LOG_LEVEL=loud", `BACKPLANE_LOG_LEVEL is "loud", but it must be debug, info, warn or error.`},
		{"an unknown format", "BACKPLANE_LOG_FORMAT=xml", `BACKPLANE_LOG_FORMAT is "xml", but it must be text or json.`},
		{"an access token of no time", "BACKPLANE_ACCESS_TOKEN_TIME=1s", `BACKPLANE_ACCESS_TOKEN_TIME is "1s", but it must be a time from 2s to 5m.`},
		{"a session of no time", "BACKPLANE_SESSION_IDLE_TIME=0s", `BACKPLANE_SESSION_IDLE_TIME is "0s", but it must be a time from 1m to 8784h (366 days).`},
		{"a session for ever", "BACKPLANE_SESSION_TIME=9000h", `BACKPLANE_SESSION_TIME is "9000h", but it must be a time from 1m to 8784h (366 days).`},
		{"a limit of nothing", "BACKPLANE_LIMIT_DEPTH=0", `BACKPLANE_LIMIT_DEPTH is "0", but it must be a whole number from 1 to 1073741824.`},
		{"a time without unit", "BACKPLANE_LIMIT_BODY_TIME=5", `BACKPLANE_LIMIT_BODY_TIME is "5", but it must be a time from 1ms to 1h, such as 500ms, 10s or 2m.`},
		{"half an account", "BACKPLANE_ADMIN_USERNAME=ada", "BACKPLANE_ADMIN_USERNAME and BACKPLANE_ADMIN_PASSWORD must be set together, or neither of them."},
		{"a typing error", "BACKPLANE_LISTN=:80", "BACKPLANE_LISTN is set, but there is no such setting; the most like it is BACKPLANE_LISTEN."},
	}
	all, want := []string{}, config.Mistakes{}
	for _, tt := range tests {
		if tt.name != "a file without name" && tt.name != "a port out of range" { // the same variable twice
			all, want = append(all, tt.given), append(want, tt.want)
		}
		t.Run("names "+tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := read([]string{tt.given})
			if diff := cmp.Diff(error(config.Mistakes{tt.want}), err); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("names all mistakes at once", func(t *testing.T) {
		t.Parallel()
		_, err := read(all)
		got, ok := errors.AsType[config.Mistakes](err)
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); !ok || diff != "" {
			t.Errorf("mistakes (-want +got):\n%s", diff)
		}
	})
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	const word = "hunter2"
	c, err := read([]string{
		"BACKPLANE_ADMIN_USERNAME=ada", "BACKPLANE_ADMIN_PASSWORD=" + word,
		"BACKPLANE_DATABASE_URL=postgres://u:" + word + "@h/d?sslpassword=" + word,
		"BACKPLANE_SECRET_KEY=" + strings.Repeat(word, 5), "BACKPLANE_TRUSTED_NETWORKS=10.0.0.0/8=" + word,
		"BACKPLANE_PAYMENT_CALLBACK_SECRETS=whsec_" + strings.Repeat(word+"/", 4),
	})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&b, nil)), slog.New(slog.NewJSONHandler(&b, nil))} {
		log.Info("configuration", "whole", c, "password", c.AdminPassword, "database", c.Database)
	}
	fmt.Fprintf(&b, "%v %+v %#v %s %q", c, c, c, c.AdminPassword, c.Database)
	if strings.Contains(b.String(), word) {
		t.Errorf("a secret shows in %s", b.String())
	}
	if !strings.Contains(b.String(), "@h/d") {
		t.Errorf("the address of the database does not show in %s", b.String())
	}
}

func TestDatabase_SQLite(t *testing.T) {
	t.Parallel()
	relative, err := filepath.Abs("data/x.db")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		url  config.Database
		path string
		ok   bool
	}{
		{"sqlite:data/x.db", relative, true},
		{"sqlite://data/x.db", relative, true},
		{"SQLITE:/x.db", "/x.db", true},
		{"sqlite:///x.db", "/x.db", true},
		{"postgres://h/d", "", false},
	}
	for _, tt := range tests {
		if path, ok := tt.url.SQLite(); path != tt.path || ok != tt.ok {
			t.Errorf("SQLite of %s = %q, %v, want %q, %v", tt.url, path, ok, tt.path, tt.ok)
		}
	}
}

func TestMarkdown_is_docs_configuration_md(t *testing.T) {
	t.Parallel()
	const path = "../../docs/configuration.md"
	if *update {
		if err := os.WriteFile(path, []byte(config.Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Markdown(), string(got)); diff != "" {
		t.Errorf("%s is not what the code declares; run make generate (-want +got):\n%s", path, diff)
	}
}

func TestSettings_have_different_names_and_a_meaning(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range config.Settings() {
		if s.Name == "" || s.Meaning == "" || seen[s.Name] {
			t.Errorf("the setting %q has no name, no meaning, or a name that another has", s.Name)
		}
		seen[s.Name] = true
	}
}

func FuzzFromEnv(f *testing.F) {
	f.Add("BACKPLANE_DATABASE_URL", "postgres://u:p@h/d?x=%zz")
	f.Add("BACKPLANE_CORS_ORIGINS", "https://[::1")
	f.Fuzz(func(t *testing.T, name, value string) {
		c, err := read([]string{name + "=" + value})
		if err == nil {
			_ = fmt.Sprintf("%+v %#v", c, c) // redaction must not panic
			return
		}
		if _, ok := errors.AsType[config.Mistakes](err); !ok {
			t.Errorf("FromEnv gave %v, want Mistakes", err)
		}
	})
}
