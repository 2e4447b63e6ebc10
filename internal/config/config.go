// Package config owns what an operator may set: the names, defaults and
// meanings of all settings, and their parsing.
//
// Each setting is an environment variable and a flag of the same meaning; the
// flag wins. One table (settings.go) declares them all: the help text and the
// table in the README are made from it. Mistakes are reported all at once, and
// no text that this package makes shows a secret.
package config

import (
	"log/slog"
	"net/netip"
	"net/url"
	"time"

	"github.com/backplane-dev/backplane/internal/secrets"
)

// Config is the checked configuration of a process.
type Config struct {
	Listen           string // host:port
	AdminListen      string // host:port, or Off
	CacheBytes       int    // in process memory; 0 for no caches at all
	Database         Database
	RedisURL         Secret           // empty if there is none; it may hold a password
	Sinks            []Sink           // with different names
	SecretKey        secrets.Key      // not set if the operator gave none
	TrustedProxies   []netip.Prefix   // from which X-Forwarded-* counts
	OutboundNetworks []netip.Prefix   // loopback and private ones in which services may be called
	TrustedNetworks  []TrustedNetwork // whose programs act by a key on REST
	RESTOperations   string           // folder of the operator's own operations, empty if there is none
	RESTDeprecated   []Deprecation    // routes that are to go
	CORSOrigins      []string         // that browsers may call from; a single "*" is any
	AssignLegacyID   bool             // give every new object the next legacy id
	RateLimit        bool
	Introspection    bool // also of suggestions in errors
	AdminUsername    string
	AdminPassword    Secret
	LogLevel         slog.Level
	LogFormat        LogFormat
	Retention        Retention
	Limits           Limits
}

// Retention says which events the log keeps.
type Retention struct {
	Age   time.Duration // older ones go; 0 for none
	Count int           // of the newest; 0 for all
	Held  int           // how many events behind a consumer or sink may be and still hold back what it has not read
}

// Limits bounds what one request may cost. Package operation says what each of
// its limits counts; the others bound HTTP. All are at least 1 but Batch.
type Limits struct {
	Tokens, Operations, Fields, ExpandedFields int
	Fragments, FragmentDepth, Depth            int
	Aliases, RootFields, Directives            int
	Cost, Errors                               int
	ResponseBytes                              int
	RequestTime                                time.Duration

	BodyBytes          int           // of a request, after decompression
	HeaderBytes        int           // of a request
	HeaderTime         time.Duration // to send the headers
	BodyTime           time.Duration // to send the body
	IdleTime           time.Duration // between two requests of a connection
	WriteTime          time.Duration // to take a response
	DrainTime          time.Duration // for requests in flight once the server stops
	ConcurrentRequests int           // GraphQL requests that run at the same time
	QueueTime          time.Duration // that a request waits to be one of them
	Batch              int           // operations in one request; 0 refuses arrays

	Connections      int           // sockets and event streams of this node
	UserConnections  int           // of them, those of one user or, for strangers, of one address
	SocketOperations int           // that live at once on one socket or single connection
	MessageBytes     int           // of a message on a socket
	InitTime         time.Duration // from the upgrade of a socket to its connection_init
	SocketIdleTime   time.Duration // of a socket without operations and messages
	KeepAlive        time.Duration // between signs of life on a quiet stream
	StallTime        time.Duration // in which the client of a stream takes nothing

	GatewayConnectTime   time.Duration // to connect to an instance
	GatewayFirstByteTime time.Duration // from the whole request to the header of its answer
	GatewayIdleTime      time.Duration // without a byte either way
	GatewayTotalTime     time.Duration // of a call of a service
	GatewayStreamTime    time.Duration // in its place for event streams and upgraded connections; 0 for ever
	GatewayBodyBytes     int           // of a request that is passed on
	GatewayCalls         int           // that are open at the same time
	GatewayUserCalls     int           // of them, those of one user or, for strangers, of one address
}

// TrustedNetwork is a network whose programs are served as if they had shown the key.
type TrustedNetwork struct {
	Prefix netip.Prefix
	Key    Secret
}

// Deprecation says of routes that they are to go.
type Deprecation struct {
	Route     string // e.g. "GET /users/{id}", or "*" for all
	Since     time.Time
	Sunset    time.Time // zero if that is open
	Successor string    // URL, empty if none was given
}

// Off is what takes the place of an address where nobody is to listen.
const Off = "off"

// LogFormat says how a log record is written.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text" // for people
	LogJSON LogFormat = "json" // for programs
)

// Database is the URL of a database; it may hold a password. String hides that,
// so only a conversion to string gives the URL to connect to.
type Database string

// SQLite returns the path of the SQLite file that the URL names; ok is false if
// it names another database.
func (d Database) SQLite() (path string, ok bool) { return cutScheme(string(d), schemeSQLite) }

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
