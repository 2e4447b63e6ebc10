package app

import (
	"context"
	"fmt"
	"net"

	"github.com/backplane-dev/backplane/internal/admin"
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/hostcheck"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
)

// UntrustedProxyMetric is 1 once a proxy that is not trusted has sent a request.
const UntrustedProxyMetric = "backplane_untrusted_proxy"

// OpenAdmin builds the admin server with its listener, and registers the metrics
// of the parts; it does nothing if the operator has turned it off. It is ready when the API is.
func OpenAdmin(ctx context.Context, env Env, api *httpd.Server, health *Health, c *cache.Cache, g *gateway.Gateway, events *securitylog.Recorder, eraser *Eraser, purger *Purger, payments *Payments, usage *legacy.Counter, sessions *session.Service) (Runner, error) {
	if env.Config.AdminListen == config.Off {
		return RunFunc(func(context.Context) error { return nil }), nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", env.Config.AdminListen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s for metrics and profiles (BACKPLANE_ADMIN_LISTEN; set it to another address, or to off): %w", env.Config.AdminListen, err)
	}
	s := admin.New(hostcheck.New(env.Config.AdminListen, env.Config.HTTP.AllowedHosts), api.Ready, events.RecordError, env.Log)
	health.register(s)
	registerCache(s, c)
	registerGateway(s, g)
	registerSecurity(s, events)
	s.Register(UntrustedProxyMetric, func() float64 { return boolGauge(api.MetUntrustedProxy()) })
	eraser.register(s)
	purger.register(s)
	payments.register(s)
	s.Register("backplane_api_keys_expiring", func() float64 { return float64(sessions.ExpiringKeys()) })
	s.Register("backplane_rest_ignored_parameters_total", func() float64 { return float64(usage.Ignored()) })
	if env.DroppedLogRecords != nil {
		s.Register("backplane_log_records_dropped_total", func() float64 { return float64(env.DroppedLogRecords()) })
	}
	return RunFunc(func(ctx context.Context) error { return s.Run(ctx, ln) }), nil
}

// RunFunc is a function that is a Runner.
type RunFunc func(ctx context.Context) error

// Run implements Runner.
func (f RunFunc) Run(ctx context.Context) error { return f(ctx) }

// registerCache registers the metrics of the cache.
func registerCache(s *admin.Server, c *cache.Cache) {
	for entity := range c.Stats().Entities {
		for name, value := range map[string]func(cache.Level) uint64{
			`hits_total{level="process",`:   func(l cache.Level) uint64 { return l.Hits },
			`misses_total{level="process",`: func(l cache.Level) uint64 { return l.Misses },
			`hits_total{level="redis",`:     func(l cache.Level) uint64 { return l.RedisHits },
			`misses_total{level="redis",`:   func(l cache.Level) uint64 { return l.RedisMisses },
			`bypassed_total{`:               func(l cache.Level) uint64 { return l.Bypassed },
			`fills_older_total{`:            func(l cache.Level) uint64 { return l.FillsOlder },
			`fills_invalidated_total{`:      func(l cache.Level) uint64 { return l.FillsInvalidated },
			`redis_fills_total{`:            func(l cache.Level) uint64 { return l.RedisFills },
			`redis_fills_refused_total{`:    func(l cache.Level) uint64 { return l.RedisRefused },
			`redis_corrupt_total{`:          func(l cache.Level) uint64 { return l.RedisCorrupt },
			`redis_stale_total{`:            func(l cache.Level) uint64 { return l.RedisStale },
			`reads_total{`:                  func(l cache.Level) uint64 { return l.Reads },
			`read_rows_total{`:              func(l cache.Level) uint64 { return l.Rows },
			`entries{`:                      func(l cache.Level) uint64 { return l.Entries },
			`bytes{`:                        func(l cache.Level) uint64 { return l.Bytes },
		} {
			s.Register(fmt.Sprintf("backplane_cache_%sentity=%q}", name, entity), func() float64 { return float64(value(c.Stats().Entities[entity])) })
		}
	}
	for name, value := range map[string]func(cache.Stats) float64{
		"backplane_cache_bypasses_total":            func(s cache.Stats) float64 { return float64(s.Bypasses) },
		"backplane_cache_minimum_versions":          func(s cache.Stats) float64 { return float64(s.MinimumVersions) },
		"backplane_cache_redis_errors_total":        func(s cache.Stats) float64 { return float64(s.Redis.Errors) },
		"backplane_cache_redis_ready":               func(s cache.Stats) float64 { return boolGauge(s.Redis.Ready && !s.Redis.Open) },
		"backplane_cache_redis_fills_dropped_total": func(s cache.Stats) float64 { return float64(s.Redis.FillsDropped) },
		"backplane_cache_redis_applied_total":       func(s cache.Stats) float64 { return float64(s.Redis.Applied) },
		"backplane_cache_redis_caught_up_total":     func(s cache.Stats) float64 { return float64(s.Redis.CaughtUp) },
		"backplane_cache_redis_renewed_total":       func(s cache.Stats) float64 { return float64(s.Redis.Renewed) },
	} {
		s.Register(name, func() float64 { return value(c.Stats()) })
	}
}

// registerGateway registers the metrics of the gateway.
func registerGateway(s *admin.Server, g *gateway.Gateway) {
	for name, value := range map[string]func(gateway.Stats) uint64{
		`requests_total{outcome="refused"}`:   func(s gateway.Stats) uint64 { return s.Refused },
		`requests_total{outcome="ok"}`:        func(s gateway.Stats) uint64 { return s.OK },
		`requests_total{outcome="failed"}`:    func(s gateway.Stats) uint64 { return s.Failed },
		`requests_total{outcome="cut"}`:       func(s gateway.Stats) uint64 { return s.Cut },
		`requests_total{outcome="cancelled"}`: func(s gateway.Stats) uint64 { return s.Cancelled },
		`retries_total{after="connect"}`:      func(s gateway.Stats) uint64 { return s.RetriedConnect },
		`retries_total{after="reset"}`:        func(s gateway.Stats) uint64 { return s.RetriedReset },
		`retries_total{after="status"}`:       func(s gateway.Stats) uint64 { return s.RetriedStatus },
		`retries_over_budget_total`:           func(s gateway.Stats) uint64 { return s.OverBudget },
		`upgrades_total`:                      func(s gateway.Stats) uint64 { return s.Upgraded },
		`circuits_opened_total`:               func(s gateway.Stats) uint64 { return s.CircuitsOpened },
		`circuit_refusals_total`:              func(s gateway.Stats) uint64 { return s.CircuitRefused },
		`in_flight`:                           func(s gateway.Stats) uint64 { return uint64(s.InFlight) }, //nolint:gosec // not negative
	} {
		s.Register("backplane_gateway_"+name, func() float64 { return float64(value(g.Stats())) })
	}
	s.Register("backplane_balance_ejections_total", func() float64 { return float64(g.Stats().Ejections) })
}

// registerSecurity registers the metrics of the security events.
func registerSecurity(s *admin.Server, r *securitylog.Recorder) {
	for _, t := range security.EventTypes() {
		s.Register(fmt.Sprintf("backplane_security_events_total{type=%q}", t), func() float64 { return float64(r.Count(t)) })
	}
	s.Register("backplane_security_events_dropped_total", func() float64 { return float64(r.Dropped()) })
	s.Register("backplane_security_events_pending", func() float64 { return float64(r.Pending()) })
}

func boolGauge(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
