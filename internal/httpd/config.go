package httpd

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

// Config tunes a Server. The zero value is ready to use.
type Config struct {
	BodyBytes       int64             // longest request body; default 1 MiB
	BodyTime        time.Duration     // to receive a body; default 10 s
	HeaderBytes     int               // longest request header; default 32 KiB
	HeaderTime      time.Duration     // to receive a header; default 5 s
	IdleTime        time.Duration     // between two requests of a connection; default 2 min
	WriteTime       time.Duration     // to send a response; default 30 s
	DrainTime       time.Duration     // for requests in flight once the server stops; default 10 s
	DrainWindow     time.Duration     // of it, over which WebSockets and event streams are closed; default half
	Operations      int               // GraphQL requests that run at once (slots); default 256
	QueueTime       time.Duration     // that a request waits for a slot before SERVER_BUSY; default 1 s
	Batch           int               // operations in one array; default 0, no arrays
	AllowedOrigins  []string          // whose pages may call from a browser, "*" for all; default none but our own
	TrustedProxies  []netip.Prefix    // whose X-Forwarded-For counts; default none
	TrustedNetworks []TrustedNetwork  // whose programs need no credential for legacy REST routes; default none
	Streams         connection.Config // of WebSockets and event streams; their MessageTime defaults to BodyTime
}

// withDefaults returns the configuration with its defaults, checked and with the trusted
// networks in order.
func (c Config) withDefaults() (Config, error) {
	if c.BodyBytes < 0 || c.HeaderBytes < 0 || c.Operations < 0 || c.Batch < 0 {
		return c, fmt.Errorf("httpd config: sizes and counts must not be negative: %+v", c)
	}
	c.BodyBytes = cmp.Or(c.BodyBytes, 1<<20)
	c.HeaderBytes = cmp.Or(c.HeaderBytes, 32<<10)
	c.Operations = cmp.Or(c.Operations, 256)
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.BodyTime, 10 * time.Second},
		{&c.HeaderTime, 5 * time.Second},
		{&c.IdleTime, 2 * time.Minute},
		{&c.WriteTime, 30 * time.Second},
		{&c.DrainTime, 10 * time.Second},
		{&c.QueueTime, time.Second},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("httpd config: times must not be negative: %+v", c)
		}
		*d.value = cmp.Or(*d.value, d.fallback)
	}
	if c.DrainWindow = cmp.Or(c.DrainWindow, c.DrainTime/2); c.DrainWindow < 0 || c.DrainWindow > c.DrainTime {
		return c, fmt.Errorf("httpd config: the drain window must be within the drain time of %s, but is %s", c.DrainTime, c.DrainWindow)
	}
	c.Streams.MessageTime = cmp.Or(c.Streams.MessageTime, c.BodyTime)
	var err error
	c.TrustedNetworks, err = sortNetworks(c.TrustedNetworks)
	return c, err
}
