package config

import (
	"slices"

	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/setting"
)

// Group is a group of settings that are shown together.
type Group struct {
	Name     string
	Settings []setting.Setting
}

// Groups returns every setting in its group.
func Groups() []Group { return new(Config).groups() }

// Settings returns every setting, in the order of Groups.
func Settings() []setting.Setting { return new(Config).settings() }

func (c *Config) settings() (all []setting.Setting) {
	for _, g := range c.groups() {
		all = append(all, g.Settings...)
	}
	return all
}

// groups returns every setting that operators can set, bound to its field of c.
func (c *Config) groups() []Group {
	return []Group{
		{"Server", []setting.Setting{
			setting.Value(&c.Listen, "LISTEN", "127.0.0.1:8080", "address of the API; `:8080` is every address of the machine", parseAddress),
			setting.Value(&c.AdminListen, "ADMIN_LISTEN", "127.0.0.1:9090", "address of metrics, profiles and health, which needs no authentication; `off` for none", parseAddressOrOff),
			setting.Value(&c.LogLevel, "LOG_LEVEL", "info", "`debug`, `info`, `warn` or `error`", parseLogLevel),
			setting.Value(&c.StopDelay, "STOP_DELAY", "7s", "time after SIGTERM during which requests are still served, while `/readyz` is 503 and answers carry `Connection: close`, so that load balancers notice; `0s` for none; Ctrl-C does not wait", parseDelay),
			setting.Value(&c.PlannedExecutor, "EXECUTOR", "planned", "what executes GraphQL: `planned`, or `gqlgen` for the library's own executor, which gives the same responses and is slower", parseEither("planned", "gqlgen")),
			setting.Value(&c.LogFormat, "LOG_FORMAT", "text", "`text` or `json`", parseLogFormat),
		}},
		{"Storage", []setting.Setting{
			markSecret(setting.Value(&c.Database, "DATABASE_URL", "sqlite:data/backplane.db", "`sqlite:PATH` for a file on this machine, `postgres://USER:PASSWORD@HOST/NAME` for PostgreSQL", parseDatabase)),
			setting.Number(&c.Conns, "DATABASE_CONNECTIONS", 11, 1, 10_000, "connections of this node to PostgreSQL for requests and background work, besides five of its own; `backplane doctor` compares the sum of all nodes with what the server allows"),
			setting.Number(&c.CredentialConns, "DATABASE_CREDENTIAL_CONNECTIONS", 3, 1, 10_000, "connections of this node to PostgreSQL for checking credentials alone"),
			markSecret(setting.Value(&c.SecretKey, "SECRET_KEY", "", "encrypts private keys and secrets in the database; 32 random characters or more, the same on every node; default on SQLite: `secret.key` next to the database", parseSecretKey)),
			markSecret(setting.Value(&c.RedisURL, "REDIS_URL", "", "`redis://USER:PASSWORD@HOST:PORT/DB` for notifications between nodes and a shared cache; default: notifications by PostgreSQL, no shared cache", parseRedisURL)),
			setting.Number(&c.CacheBytes, "CACHE_BYTES", 64<<20, 0, setting.MaxCount, "bytes of the cache in the memory of this process; `0` turns all caching off, in Redis too"),
		}},
		{"Access", []setting.Setting{
			setting.Value(&c.AdminUsername, "ADMIN_USERNAME", "", "username of the first ADMIN, created while there is none; default: `admin`, with a random password that is printed once to a terminal, else written to a file that only its owner can read", parseAny),
			markSecret(setting.Value(&c.AdminPassword, "ADMIN_PASSWORD", "", "password of the first ADMIN", parseSecret)),
			setting.Value(&c.AccessTokenTime, "ACCESS_TOKEN_TIME", "5m", "life of an access token, from `2s` to `5m`; clients renew it by `refreshSession`", parseTokenTime),
			setting.Value(&c.SessionIdleTime, "SESSION_IDLE_TIME", "720h", "time after which a session ends that was not refreshed, the life of a refresh token, from `1m` to `8784h`", parseSessionTime),
			setting.Value(&c.SessionTime, "SESSION_TIME", "2160h", "time after which a session ends that was refreshed all along, from `1m` to `8784h`; the user signs in again", parseSessionTime),
			setting.Value(&c.RateLimit, "RATE_LIMIT", "on", "`off` turns off the rate limits on password attempts, names and changes: for benchmarks and tests only", parseEither("on", "off")),
			setting.Value(&c.Introspection, "INTROSPECTION", "on", "`off` hides the schema, also `/schema.graphql`, and suggestions in error messages", parseEither("on", "off")),
			setting.Value(&c.HTTP.HideDocs, "DOCS", "on", "`off` hides GraphiQL, the page and the OpenAPI document of the legacy REST routes", parseEither("off", "on")),
			setting.Value(&c.HTTP.SecurityContact, "SECURITY_CONTACT", "", "URL for reports of vulnerabilities, e.g. `mailto:security@shop.example`, served in `/.well-known/security.txt`", parseContact),
			setting.Value(&c.HTTP.AllowedHosts, "ALLOWED_HOSTS", "", "comma-separated host names that clients call the server by, e.g. `shop.example,*.shop.example`, or `*`; IP addresses, `localhost`, the host of the listen address and that of `BACKPLANE_PUBLIC_URL` are always allowed, others get 421", parseList(parseHost)),
			setting.Value(&c.HTTP.AllowedOrigins, "CORS_ORIGINS", "", "comma-separated origins whose pages may call the API, e.g. `https://shop.example`, or `*`", parseOrigins),
			setting.Value(&c.HTTP.CORSHeaders, "CORS_HEADERS", "traceparent,tracestate,baggage,sentry-trace,apollographql-client-name,apollographql-client-version,apollo-require-preflight,x-requested-with", "comma-separated request headers that such pages may send besides those of the API, or `*`", parseList(parseHeaderName)),
			setting.Value(&c.HTTP.CORSExposedHeaders, "CORS_EXPOSED_HEADERS", "", "comma-separated response headers that such pages may read besides those of the API, e.g. of services behind the gateway", parseList(parseHeaderName)),
			setting.Value(&c.HTTP.TrustedProxies, "TRUSTED_PROXIES", "", "comma-separated networks of proxies whose `X-Forwarded-*` headers are used, e.g. `10.0.0.0/8,::1`", parseList(parseNetwork)),
			markSecret(setting.Value(&c.HTTP.TrustedNetworks, "TRUSTED_NETWORKS", "", "comma-separated networks from which clients may call the REST routes without credentials, each with the API key that they act by, e.g. `10.1.0.0/16=KEY`", parseList(parseTrustedNetwork))),
			setting.Value(&c.OutboundNetworks, "OUTBOUND_NETWORKS", "", "comma-separated loopback and private networks in which services may be called, e.g. `10.0.0.0/8`; default: all of them on SQLite, none on PostgreSQL", parseList(parseNetwork)),
		}},
		{"Event log", append([]setting.Setting{
			markSecret(setting.Value(&c.Sinks, "SINKS", "", "comma-separated URLs of brokers that the event log is exported to, e.g. `redis://HOST:6379/0?stream=backplane.events,amqp://USER:PASSWORD@HOST/VHOST?exchange=backplane,nats://HOST:4222?stream=BACKPLANE&subject=backplane`; see docs/sinks.md", parseSinks)),
		}, namedSettings(append(c.Retention.Settings(), c.DeadLetters.Settings()...))...)},
		{"Payments", append(namedSettings(c.Payments.Settings()),
			setting.Value(&c.PublicURL, "PUBLIC_URL", "", "URL that payment services call this server by, e.g. `https://shop.example`: requests to them then say where outcomes that come later are sent; default: they are asked for", parsePublicURL),
			markSecret(setting.Value(&c.CallbackSecrets, "PAYMENT_CALLBACK_SECRETS", "", "secrets that payment services sign callbacks with, e.g. made by `echo whsec_$(openssl rand -base64 32)`; two with a comma between them while they are rotated; default: callbacks are not served", parseCallbackSecrets)),
		)},
		{"Security events", namedSettings(c.Security.Settings())},
		{"Legacy REST", []setting.Setting{
			setting.Value(&c.RESTOperations, "REST_OPERATIONS", "", "folder of `*.graphql` files, stored operations that are served as routes in addition to the built-in ones", parseAny),
			setting.Value(&c.RESTDeprecated, "REST_DEPRECATED", "", "comma-separated deprecated routes, each with the day of deprecation, the day when it may stop and its successor, e.g. `* 2026-06-01 2027-06-01 https://shop.example/docs`; the last two may be left out", parseList(parseDeprecation)),
			setting.Number(&c.RESTPageSize, "REST_PAGE_SIZE", page.DefaultSize, 1, page.MaxSize, "objects in a list for a client that does not say how many"),
			setting.Value(&c.RESTIgnore, "REST_UNKNOWN_PARAMETERS", "refuse", "`ignore` passes over parameters of the query that a route does not know, and counts them for `backplane legacy`; `refuse` answers with 422", parseEither("ignore", "refuse")),
			setting.Value(&c.AssignLegacyID, "LEGACY_IDS", "off", "`assign` gives every new user, product and order the next number as its `legacyId`", parseEither("assign", "off")),
		}},
		{"Limits of a GraphQL operation", namedSettings(c.GraphQL.Settings())},
		{"Limits of HTTP", namedSettings(c.HTTP.Settings())},
		{"Limits of WebSockets and event streams", namedSettings(c.HTTP.Streams.Settings())},
		{"Limits of changes", namedSettings(c.Writes.Settings())},
		{"Limits of the gateway", namedSettings(c.Gateway.Settings())},
	}
}

// namedSettings returns the settings that operators can set.
func namedSettings(all []setting.Setting) []setting.Setting {
	return slices.DeleteFunc(all, func(s setting.Setting) bool { return s.Name == "" })
}

func markSecret(s setting.Setting) setting.Setting {
	s.Secret = true
	return s
}
