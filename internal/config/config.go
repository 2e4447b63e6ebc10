// Package config reads the configuration: it collects the settings that the other
// packages declare, declares those of the whole process itself, and reads all of
// them from environment variables and flags of the same meaning; the flag wins.
//
// Help and documentation are made from the same declarations. Mistakes are
// reported all at once, and no text that this package makes shows a secret.
package config

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/rest"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/signing"
	"github.com/backplane-dev/backplane/internal/writelimit"
)

// Config is the checked configuration of a process. groups says what its fields
// mean.
type Config struct {
	Listen           string // host:port
	AdminListen      string // host:port, or Off
	StopDelay        time.Duration
	AccessTokenTime  time.Duration
	SessionIdleTime  time.Duration // without a refresh
	SessionTime      time.Duration // in all
	LogLevel         slog.Level
	LogFormat        LogFormat
	Database         Database
	Conns            int    // to PostgreSQL
	CredentialConns  int    // to PostgreSQL for reads of credentials
	RedisURL         Secret // empty if there is none; it may hold a password
	CacheBytes       int
	SecretKey        secrets.MasterKey // not set if the operator gave none
	AdminUsername    string
	AdminPassword    Secret
	RateLimit        bool
	Introspection    bool
	PlannedExecutor  bool
	OutboundNetworks []netip.Prefix
	Sinks            []Sink // with different names
	RESTOperations   string // folder, empty if there is none
	RESTDeprecated   []rest.Deprecation
	RESTPageSize     int
	RESTIgnore       bool // parameters of the query that a route does not know
	AssignLegacyID   bool

	Retention   eventlog.RetentionConfig
	DeadLetters consumer.DeadLetterConfig
	Security    securitylog.Config
	GraphQL     executor.Limits
	HTTP        httpd.Config
	Gateway     gateway.Config
	Writes      writelimit.Config
	Payments    payment.Config

	PublicURL       string           // that payment services call this server by, without a slash at its end; empty if unknown
	CallbackSecrets []signing.Secret // of payment services, at most two
}

// ListenHost returns the host of the address that the API listens on, empty for all addresses.
func (c *Config) ListenHost() string {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return ""
	}
	return host
}

// PublicHost returns the host of PublicURL, empty if there is none.
func (c *Config) PublicHost() string {
	u, err := url.Parse(c.PublicURL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// Off replaces an address on which the process is not to listen.
const Off = "off"

// LogFormat says how a log record is written.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text" // key=value, for people
	LogJSON LogFormat = "json" // for log collectors
)

// Database is the URL of a database; it may hold a password. String hides that,
// so only a conversion to string gives the URL to connect to.
type Database string

// SQLite returns the whole path of the SQLite file that the URL names, by a relative path (sqlite:data/x.db, sqlite://data/x.db)
// or a whole one (sqlite:/data/x.db, sqlite:///data/x.db); ok is false if it names another database.
func (d Database) SQLite() (path string, ok bool) {
	path, ok = cutScheme(string(d), schemeSQLite)
	if !ok {
		return "", false
	}
	path = strings.TrimPrefix(path, "//")
	if full, err := filepath.Abs(path); err == nil { // else the working directory is gone
		path = full
	}
	return path, true
}

// String returns the URL with any password replaced.
func (d Database) String() string {
	if _, ok := d.SQLite(); ok {
		return string(d)
	}
	u, err := url.Parse(string(d))
	if err != nil {
		return hidden
	}
	query := u.Query()
	for _, name := range []string{"password", "sslpassword"} {
		if query.Has(name) {
			query.Set(name, "xxxxx")
			u.RawQuery = query.Encode()
		}
	}
	return u.Redacted()
}

// GoString is String, for %#v.
func (d Database) GoString() string { return d.String() }

// LogValue implements slog.LogValuer.
func (d Database) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText is String, for encoders.
func (d Database) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

const hidden = "(hidden)"

// Secret is text that does not print; a conversion to string reveals it.
type Secret string

// String returns a fixed text, or nothing if the secret is empty.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
