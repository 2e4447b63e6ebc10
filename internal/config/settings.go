package config

import (
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/secrets"
)

// prefix starts the name of each of our environment variables.
const prefix = "BACKPLANE_"

// Setting declares one thing that an operator may set.
type Setting struct {
	Group   string // of settings that are shown together
	Meaning string // what it does, with code in backquotes
	Default string // the value if nothing is set, in the form an operator would write

	name   string // of the environment variable, without the prefix
	parse  func(c *Config, value string) error
	secret bool // not repeated in messages
}

// Variable returns the name of the environment variable.
func (s Setting) Variable() string { return prefix + s.name }

// Flag returns the name of the flag, without dashes in front.
func (s Setting) Flag() string { return strings.ReplaceAll(strings.ToLower(s.name), "_", "-") }

// Describe returns the meaning of the setting with its default.
func (s Setting) Describe() string {
	if s.Default == "" {
		return s.Meaning
	}
	return s.Meaning + " (default `" + s.Default + "`)"
}

// Settings returns every setting, in the order in which they are shown.
func Settings() []Setting {
	return append(general(), limits()...)
}

// Group is a named group of settings.
type Group struct {
	Name     string
	Settings []Setting
}

// Groups returns every setting in its group.
func Groups() []Group {
	return []Group{{"General", general()}, {"Limits", limits()}}
}

func general() []Setting {
	return []Setting{
		{name: "LISTEN", Default: "127.0.0.1:8080", parse: into(func(c *Config) *string { return &c.Listen }, address),
			Meaning: "address to serve on; `:8080` is every address of the machine"},
		{name: "ADMIN_LISTEN", Default: "127.0.0.1:9090", parse: into(func(c *Config) *string { return &c.AdminListen }, addressOrOff),
			Meaning: "address of metrics, profiles and health, which asks nobody who is calling; `off` for none"},
		{name: "DATABASE_URL", Default: "sqlite:data/backplane.db", parse: into(func(c *Config) *Database { return &c.Database }, database), secret: true,
			Meaning: "`sqlite:PATH` for a file on this machine, `postgres://USER:PASSWORD@HOST/NAME` for PostgreSQL"},
		{name: "REDIS_URL", parse: into(func(c *Config) *Secret { return &c.RedisURL }, redisURL), secret: true,
			Meaning: "`redis://USER:PASSWORD@HOST:PORT/DB`, by which nodes hear of one another's events, and where they share what they have read; unset: by PostgreSQL itself, and not at all"},
		{name: "CACHE_BYTES", Default: "67108864", parse: into(func(c *Config) *int { return &c.CacheBytes }, between(0, maxLimit)),
			Meaning: "bytes of what was read that this process keeps; `0` for no caches, in Redis neither"},
		{name: "SINKS", parse: into(func(c *Config) *[]Sink { return &c.Sinks }, sinks), secret: true,
			Meaning: "brokers that get the event log, with commas between them, e.g. `redis://HOST:6379/0?stream=backplane.events,amqp://USER:PASSWORD@HOST/VHOST?exchange=backplane,nats://HOST:4222?stream=BACKPLANE&subject=backplane`; see docs/sinks.md"},
		{name: "SECRET_KEY", parse: into(func(c *Config) *secrets.Key { return &c.SecretKey }, secretKey), secret: true,
			Meaning: "seals stored private keys and secrets; 32 random characters or more, the same on every node. Unset on SQLite: `secret.key` beside the database"},
		{name: "ADMIN_USERNAME", parse: into(func(c *Config) *string { return &c.AdminUsername }, anything),
			Meaning: "username of the first ADMIN, made only while there is none; unset: `admin`, with a random password that is printed once"},
		{name: "ADMIN_PASSWORD", parse: into(func(c *Config) *Secret { return &c.AdminPassword }, secret), secret: true,
			Meaning: "password of the first ADMIN"},
		{name: "TRUSTED_PROXIES", parse: into(func(c *Config) *[]netip.Prefix { return &c.TrustedProxies }, listOf(network)),
			Meaning: "networks whose `X-Forwarded-*` headers count, e.g. `10.0.0.0/8,::1`"},
		{name: "OUTBOUND_NETWORKS", parse: into(func(c *Config) *[]netip.Prefix { return &c.OutboundNetworks }, listOf(network)),
			Meaning: "loopback and private networks in which services may be called, e.g. `10.0.0.0/8`; unset: all of them on SQLite, none on PostgreSQL"},
		{name: "TRUSTED_NETWORKS", parse: into(func(c *Config) *[]TrustedNetwork { return &c.TrustedNetworks }, listOf(trustedNetwork)), secret: true,
			Meaning: "networks whose programs may call REST without credentials, each with the API key by which they then act, e.g. `10.1.0.0/16=KEY`"},
		{name: "REST_OPERATIONS", parse: into(func(c *Config) *string { return &c.RESTOperations }, anything),
			Meaning: "folder of `*.graphql` files, operations that are served as routes beside the built-in ones"},
		{name: "REST_DEPRECATED", parse: into(func(c *Config) *[]Deprecation { return &c.RESTDeprecated }, listOf(deprecation)),
			Meaning: "routes that are to go, each with the day since when, the day when it may stop and its successor, e.g. `* 2026-06-01 2027-06-01 https://shop.example/docs`; the last two may be left out"},
		{name: "CORS_ORIGINS", parse: into(func(c *Config) *[]string { return &c.CORSOrigins }, origins),
			Meaning: "origins whose pages may call the API, e.g. `https://shop.example`, or `*`"},
		{name: "RETENTION_AGE", Default: "0s", parse: into(func(c *Config) *time.Duration { return &c.Retention.Age }, age),
			Meaning: "how long events are kept, e.g. `720h`; `0s` keeps them for ever"},
		{name: "RETENTION_COUNT", Default: "0", parse: into(func(c *Config) *int { return &c.Retention.Count }, between(0, maxLimit)),
			Meaning: "how many of the newest events are kept; `0` keeps all"},
		{name: "RETENTION_HELD", Default: "1000000", parse: into(func(c *Config) *int { return &c.Retention.Held }, between(1, maxLimit)),
			Meaning: "how many events behind a consumer or sink may be and still hold back events that it has not read"},
		{name: "LEGACY_IDS", Default: "off", parse: into(func(c *Config) *bool { return &c.AssignLegacyID }, eitherOf("assign", "off")),
			Meaning: "`assign` gives every new user, product and order the next number as its `legacyId`"},
		{name: "INTROSPECTION", Default: "on", parse: into(func(c *Config) *bool { return &c.Introspection }, eitherOf("on", "off")),
			Meaning: "`off` hides the schema and the suggestions in error messages"},
		{name: "RATE_LIMIT", Default: "on", parse: into(func(c *Config) *bool { return &c.RateLimit }, eitherOf("on", "off")),
			Meaning: "`off` lets anybody try passwords as fast as they like: for benchmarks and tests"},
		{name: "LOG_LEVEL", Default: "info", parse: into(func(c *Config) *slog.Level { return &c.LogLevel }, logLevel),
			Meaning: "`debug`, `info`, `warn` or `error`"},
		{name: "LOG_FORMAT", Default: "text", parse: into(func(c *Config) *LogFormat { return &c.LogFormat }, logFormat),
			Meaning: "`text` or `json`"},
	}
}

func limits() []Setting {
	return []Setting{
		count("TOKENS", "10000", "lexical tokens of a document", func(l *Limits) *int { return &l.Tokens }),
		count("OPERATIONS", "50", "operations in a document", func(l *Limits) *int { return &l.Operations }),
		count("FIELDS", "3000", "fields as written in a document", func(l *Limits) *int { return &l.Fields }),
		count("EXPANDED_FIELDS", "15000", "fields of a document, each fragment counted wherever it is spread", func(l *Limits) *int { return &l.ExpandedFields }),
		count("FRAGMENTS", "200", "fragments in a document", func(l *Limits) *int { return &l.Fragments }),
		count("FRAGMENT_DEPTH", "20", "fragments that spread fragments, the longest chain", func(l *Limits) *int { return &l.FragmentDepth }),
		count("DEPTH", "20", "levels of fields of an operation, and of a list or object value", func(l *Limits) *int { return &l.Depth }),
		count("ALIASES", "100", "fields with an alias", func(l *Limits) *int { return &l.Aliases }),
		count("ROOT_FIELDS", "30", "fields at the root of an operation", func(l *Limits) *int { return &l.RootFields }),
		count("DIRECTIVES", "200", "directives in a document", func(l *Limits) *int { return &l.Directives }),
		count("COST", "50000", "cost of an operation: each field counts once for each item of the lists around it", func(l *Limits) *int { return &l.Cost }),
		count("ERRORS", "50", "errors in a response", func(l *Limits) *int { return &l.Errors }),
		count("RESPONSE_BYTES", "16777216", "bytes of the data of a response", func(l *Limits) *int { return &l.ResponseBytes }),
		span("REQUEST_TIME", "10s", "how long a query or mutation may run", func(l *Limits) *time.Duration { return &l.RequestTime }),
		count("BODY_BYTES", "1048576", "bytes of a request's body", func(l *Limits) *int { return &l.BodyBytes }),
		count("HEADER_BYTES", "32768", "bytes of a request's headers", func(l *Limits) *int { return &l.HeaderBytes }),
		span("HEADER_TIME", "5s", "how long a client may take to send the headers", func(l *Limits) *time.Duration { return &l.HeaderTime }),
		span("BODY_TIME", "10s", "how long a client may take to send the body", func(l *Limits) *time.Duration { return &l.BodyTime }),
		span("IDLE_TIME", "2m", "how long a connection may lie idle between two requests", func(l *Limits) *time.Duration { return &l.IdleTime }),
		span("WRITE_TIME", "30s", "how long a client may take to receive the response", func(l *Limits) *time.Duration { return &l.WriteTime }),
		span("DRAIN_TIME", "10s", "how long requests in flight may go on once the server stops", func(l *Limits) *time.Duration { return &l.DrainTime }),
		count("CONCURRENT_REQUESTS", "256", "GraphQL requests that run at the same time", func(l *Limits) *int { return &l.ConcurrentRequests }),
		span("QUEUE_TIME", "1s", "how long a request waits to be one of them before it is refused", func(l *Limits) *time.Duration { return &l.QueueTime }),
		count("CONNECTIONS", "20000", "sockets and event streams that are open on this node at the same time", func(l *Limits) *int { return &l.Connections }),
		count("USER_CONNECTIONS", "2500", "of them, those of one user; for callers who are not signed in, of one address", func(l *Limits) *int { return &l.UserConnections }),
		count("SOCKET_OPERATIONS", "100", "operations that live at the same time on one socket", func(l *Limits) *int { return &l.SocketOperations }),
		count("MESSAGE_BYTES", "1048576", "bytes of a message on a socket", func(l *Limits) *int { return &l.MessageBytes }),
		span("INIT_TIME", "10s", "how long a socket may take to send `connection_init`", func(l *Limits) *time.Duration { return &l.InitTime }),
		span("SOCKET_IDLE_TIME", "5m", "how long a socket may lie idle, without operations and messages", func(l *Limits) *time.Duration { return &l.SocketIdleTime }),
		span("KEEP_ALIVE", "15s", "how often a quiet socket or event stream gives a sign of life", func(l *Limits) *time.Duration { return &l.KeepAlive }),
		span("STALL_TIME", "5m", "how long the client of a socket or event stream may take nothing of what waits for it", func(l *Limits) *time.Duration { return &l.StallTime }),
		span("GATEWAY_CONNECT_TIME", "2s", "how long connecting to an instance of a service may take, TLS included", func(l *Limits) *time.Duration { return &l.GatewayConnectTime }),
		span("GATEWAY_FIRST_BYTE_TIME", "30s", "how long an instance may take, once it has the whole request, to begin its answer", func(l *Limits) *time.Duration { return &l.GatewayFirstByteTime }),
		span("GATEWAY_IDLE_TIME", "5m", "how long a call of a service, a stream or an upgraded connection may go without a byte either way", func(l *Limits) *time.Duration { return &l.GatewayIdleTime }),
		span("GATEWAY_TOTAL_TIME", "10m", "how long a call of a service may take in all", func(l *Limits) *time.Duration { return &l.GatewayTotalTime }),
		{name: "LIMIT_GATEWAY_STREAM_TIME", Default: "0s", parse: into(func(c *Config) *time.Duration { return &c.Limits.GatewayStreamTime }, age),
			Meaning: "how long event streams and upgraded connections to services may live; `0s` for ever"},
		count("GATEWAY_BODY_BYTES", "104857600", "bytes of the body of a request to a service", func(l *Limits) *int { return &l.GatewayBodyBytes }),
		count("GATEWAY_CALLS", "10000", "calls of services, streams and upgraded connections included, that are open on this node at the same time", func(l *Limits) *int { return &l.GatewayCalls }),
		count("GATEWAY_USER_CALLS", "2500", "of them, those of one user; for callers who are not signed in, of one address", func(l *Limits) *int { return &l.GatewayUserCalls }),
		{name: "LIMIT_BATCH", Default: "0", parse: into(func(c *Config) *int { return &c.Limits.Batch }, between(0, 100)),
			Meaning: "operations that one request may carry in an array; `0` refuses arrays"},
	}
}

// count declares a limit that counts something.
func count(name, fallback, about string, field func(*Limits) *int) Setting {
	return Setting{name: "LIMIT_" + name, Default: fallback, Meaning: about,
		parse: into(func(c *Config) *int { return field(&c.Limits) }, between(1, maxLimit))}
}

// span declares a limit on time.
func span(name, fallback, about string, field func(*Limits) *time.Duration) Setting {
	return Setting{name: "LIMIT_" + name, Default: fallback, Meaning: about,
		parse: into(func(c *Config) *time.Duration { return field(&c.Limits) }, duration)}
}
