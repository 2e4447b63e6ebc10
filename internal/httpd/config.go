package httpd

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/setting"
)

// Config tunes a Server. The zero value is ready to use; Settings says what the
// limits mean.
type Config struct {
	BodyBytes   int64
	BodyTime    time.Duration
	HeaderBytes int
	HeaderTime  time.Duration
	IdleTime    time.Duration
	WriteTime   time.Duration
	DrainTime   time.Duration
	DrainWindow time.Duration // part of DrainTime over which WebSockets and event streams are closed; default half
	Operations  int
	QueueTime   time.Duration
	Batch       int
	MemoryBytes int64

	OpenConnections    int
	AddressConnections int

	HideDocs           bool              // no GraphiQL, no page and no document of the legacy REST routes
	SecurityContact    string            // URL for reports of vulnerabilities, in security.txt; empty for none
	AllowedHosts       []string          // names that the server is called by, with the address it listens on; IP literals and localhost are always allowed
	AllowedOrigins     []string          // whose pages may call from a browser, "*" for all; default none but our own
	AllowLocalOrigins  bool              // pages of servers on the machine of the browser may call, too
	CORSHeaders        []string          // that pages may send besides those of the API, "*" for all
	CORSExposedHeaders []string          // that pages may read besides those of the API
	TrustedProxies     []netip.Prefix    // whose X-Forwarded-For counts; default none
	TrustedNetworks    []TrustedNetwork  // whose programs need no credential for legacy REST routes; default none
	Streams            connection.Config // of WebSockets and event streams; their MessageTime defaults to BodyTime
}

// Settings declares the limits on requests; Streams declares its own.
func (c *Config) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Count(&c.BodyBytes, "LIMIT_BODY_BYTES", 1<<20, "bytes of a request body, after decompression"),
		setting.Count(&c.HeaderBytes, "LIMIT_HEADER_BYTES", 32<<10, "bytes of a request header"),
		setting.Count(&c.OpenConnections, "LIMIT_OPEN_CONNECTIONS", 10_000, "HTTP connections that are open at the same time, besides WebSockets and event streams"),
		setting.Count(&c.AddressConnections, "LIMIT_ADDRESS_CONNECTIONS", 2_500, "of them, those from one address that is no trusted proxy; a new one takes the place of an idle one"),
		setting.Duration(&c.HeaderTime, "LIMIT_HEADER_TIME", 5*time.Second, "time to receive a request header"),
		setting.Duration(&c.BodyTime, "LIMIT_BODY_TIME", 10*time.Second, "time to receive a request body"),
		setting.Duration(&c.IdleTime, "LIMIT_IDLE_TIME", 2*time.Minute, "time after which a connection is closed that is idle between two requests"),
		setting.Duration(&c.WriteTime, "LIMIT_WRITE_TIME", 30*time.Second, "time to send a response"),
		setting.Duration(&c.DrainTime, "LIMIT_DRAIN_TIME", 10*time.Second, "time for requests in flight to finish when the server stops"),
		setting.Count(&c.Operations, "LIMIT_CONCURRENT_REQUESTS", 256, "GraphQL requests that run at the same time"),
		setting.Duration(&c.QueueTime, "LIMIT_QUEUE_TIME", time.Second, "time that a request waits in the queue to run before it is refused with `SERVER_BUSY`"),
		setting.Number(&c.MemoryBytes, "LIMIT_MEMORY_BYTES", 256<<20, 1<<20, 1<<40, "bytes of memory for request bodies and responses on this node; a user may hold a quarter, an address half"),
		setting.Number(&c.Batch, "LIMIT_BATCH", 0, 0, 100, "operations in one request that is an array; `0` refuses arrays"),
	}
}

// withDefaults returns the configuration with its defaults, checked and with the trusted
// networks in order.
func (c Config) withDefaults() (Config, error) {
	if err := setting.ApplyDefaults("httpd config", c.Settings()); err != nil {
		return c, err
	}
	if c.DrainWindow = cmp.Or(c.DrainWindow, c.DrainTime/2); c.DrainWindow < 0 || c.DrainWindow > c.DrainTime {
		return c, fmt.Errorf("httpd config: the drain window must be within the drain time of %s, but is %s", c.DrainTime, c.DrainWindow)
	}
	c.Streams.MessageTime = cmp.Or(c.Streams.MessageTime, c.BodyTime)
	var err error
	c.TrustedNetworks, err = sortNetworks(c.TrustedNetworks)
	return c, err
}
