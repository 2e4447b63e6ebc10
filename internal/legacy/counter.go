package legacy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/uid"
)

// CounterConfig tunes a Counter. The zero value is ready to use.
type CounterConfig struct {
	Interval time.Duration // between two stores; default 5 s
	Pending  int           // pairs of route and client counted between two stores; default 1000
	CheckAge func() error  // returns why nothing is to be removed by its age, or nil; by default it always is
}

// Counter counts calls of routes on this node. It is safe for concurrent use.
type Counter struct {
	cfg   CounterConfig
	store Store
	now   func() time.Time
	log   *slog.Logger

	mu         sync.Mutex
	pending    map[[2]string]*Usage       // by route and client
	parameters map[string]map[string]bool // counted by their names, by route
	paths      map[string]bool            // that are not served, and counted by their names
	pathsOf    map[uid.User]int           // how many of them a user was the first to call

	ignored atomic.Int64 // parameters
}

// NewCounter returns a Counter that stores nothing until Run is called.
func NewCounter(store Store, now func() time.Time, log *slog.Logger, cfg CounterConfig) (*Counter, error) {
	if store == nil || now == nil || log == nil {
		return nil, errors.New("legacy: store, now and log are required")
	}
	if cfg.Interval < 0 || cfg.Pending < 0 {
		return nil, fmt.Errorf("legacy config: negative value in %+v", cfg)
	}
	cfg.Interval, cfg.Pending = cmp.Or(cfg.Interval, 5*time.Second), cmp.Or(cfg.Pending, 1000)
	return &Counter{cfg: cfg, store: store, now: now, log: log, pending: map[[2]string]*Usage{}, parameters: map[string]map[string]bool{}, paths: map[string]bool{}, pathsOf: map[uid.User]int{}}, nil
}

// CountCall counts a call of the route by the client of ctx. It never blocks.
func (c *Counter) CountCall(ctx context.Context, route string) {
	c.addUsage(Usage{Route: route, Client: clientOf(ctx), Calls: 1, LastSeenAt: c.now()})
}

func (c *Counter) addUsage(u Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]string{u.Route, u.Client}
	if c.pending[key] == nil && len(c.pending) >= c.cfg.Pending {
		key[1] = Others // at most one more for each route
	}
	have := c.pending[key]
	if have == nil {
		have = &Usage{Route: u.Route, Client: key[1], FirstSeenAt: u.LastSeenAt}
		c.pending[key] = have
	}
	have.Calls += u.Calls
	have.LastSeenAt = u.LastSeenAt
}

// clientOf names the client: an API key by its id, others by their user agent, since the
// client of a route is a program and not a user.
func clientOf(ctx context.Context) string {
	if key := auth.From(ctx).APIKeyID(); key != "" {
		return string(key)
	}
	name := strings.Map(printableRune, auth.ClientFrom(ctx).UserAgent)
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "")
	}
	return cmp.Or(strings.TrimSpace(name), Unnamed)
}

// printableRune keeps printable ASCII.
func printableRune(r rune) rune {
	if r < ' ' || r == 0x7f || r > '~' {
		return -1
	}
	return r
}

// Run stores the counts every Interval until ctx is cancelled, then a last time, and
// returns nil. Counts that could not be stored are stored with the next ones.
func (c *Counter) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Interval)
			defer cancel()
			c.storePending(last)
			return nil
		case <-tick.C:
			c.storePending(ctx)
		}
	}
}

func (c *Counter) storePending(ctx context.Context) {
	usage := c.takePending()
	if len(usage) == 0 {
		return
	}
	bounds := Bounds{Rows: maxRows, Stale: c.now().Add(-keepUnused)}
	if check := c.cfg.CheckAge; check != nil && check() != nil {
		bounds.Stale = time.Time{}
	}
	err := c.store.Add(ctx, usage, bounds)
	if err == nil {
		return
	}
	for _, u := range usage {
		c.addUsage(u)
	}
	if ctx.Err() == nil {
		c.log.WarnContext(ctx, "legacy route usage could not be stored; it is stored with the next counts", "error", err)
	}
}

func (c *Counter) takePending() []Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	usage := make([]Usage, 0, len(c.pending))
	for _, u := range c.pending {
		usage = append(usage, *u)
	}
	clear(c.pending)
	return usage
}
