// Package client registers, watches and calls services of a Backplane registry. It imports only
// the standard library and package policy, by which the server balances too.
//
//   - Register keeps an instance registered by heartbeats for as long as the process lives.
//   - Health answers the checks of the registry, and of any other balancer.
//   - Watch keeps the set of a service's instances up to date, and goes on from the
//     last known one while the registry is away.
//   - Balancer chooses among them for each call, and Transport does so for HTTP.
//
// While the registry cannot be reached, instances stay registered for their time to live, and
// sets stay as they were last known and show since when they are stale.
//
// Everything is safe for concurrent use unless it says otherwise.
package client

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// Config says where the registry is. URLs and Token must be given.
type Config struct {
	URLs       []string      // of its nodes, e.g. http://10.0.0.1:8080: one is used until it fails, then the next
	Token      string        // an API key; it needs the scope service:NAME to register, to watch also services:read does
	HTTPClient *http.Client  // for calls of the registry; must set no Timeout, as streams last. Default: one of its own
	Timeout    time.Duration // of one call to one node; default 5 s
	Silence    time.Duration // idle timeout after which a stream counts as broken; default 45 s, three keep-alives
	Logger     *slog.Logger  // default: none
}

// String formats the Config without its Token.
func (c Config) String() string {
	return fmt.Sprintf("{URLs: %v, Timeout: %v, Silence: %v}", c.URLs, c.Timeout, c.Silence)
}

// GoString formats the Config without its Token.
func (c Config) GoString() string { return c.String() }

func (c Config) withDefaults() (Config, error) {
	c.Timeout, c.Silence = cmp.Or(c.Timeout, 5*time.Second), cmp.Or(c.Silence, 45*time.Second)
	if c.Timeout < 0 || c.Silence < 0 {
		return c, fmt.Errorf("client config: negative value in %v", c)
	}
	if len(c.URLs) == 0 || c.Token == "" {
		return c, errors.New("client config: URLs and Token must be given")
	}
	urls := make([]string, len(c.URLs))
	for i, text := range c.URLs {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return c, fmt.Errorf("client config: URL %d is not http or https with a host and perhaps a path", i+1)
		}
		urls[i] = strings.TrimSuffix(text, "/")
	}
	c.URLs = urls
	if c.HTTPClient == nil {
		c.HTTPClient = newHTTPClient()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Client calls a registry.
type Client struct {
	cfg  Config
	node atomic.Int64 // index of the node that is used
}

// New returns a Client; it starts nothing and sends nothing.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg}, nil
}

// Close drops connections that are idle. Registrations and watches are ended by
// methods of their own, and first.
func (c *Client) Close() { c.cfg.HTTPClient.CloseIdleConnections() }

// newHTTPClient returns a client that follows no redirect: a token is for the
// registry alone.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// currentNode returns the node to begin with.
func (c *Client) currentNode() int { return int(c.node.Load()) }

// useNextNode makes the next node the one that is used, unless another goroutine has.
func (c *Client) useNextNode(node int) {
	c.node.CompareAndSwap(int64(node), int64((node+1)%len(c.cfg.URLs)))
}
