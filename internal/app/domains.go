package app

import (
	"time"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/user"
)

// NewDomains builds the use cases behind the schema.
func NewDomains(env Env, db *store.DB, c *cache.Cache, hub *eventlog.Hub, sessions *session.Service, reg *Registry) graph.Domains {
	log, now := eventlog.NewLog(c.Events(db.Events())).CountingIn(hub), db.Clock().Now
	return graph.Domains{
		Users:         user.NewService(c.Users(db.Users()), sessions, now),
		Products:      order.NewCatalog(c.Products(db.Products()), now),
		Orders:        order.NewService(c.Orders(db.Orders()), now),
		Sessions:      sessions,
		Registry:      reg.Registrar,
		Picks:         reg.Picks,
		Log:           log,
		Hub:           hub,
		ConsumerAdmin: consumer.NewAdmin(log, db.Leases(), db.DeadLetters(), now),
		Legacy:        legacy.NewService(db.LegacyUsage()),
		Payments:      payment.NewService(db.Payments(), now, env.Config.Payments),
		Security:      securitylog.NewService(db.SecurityEvents()),
	}
}

// NewSecurityLog builds the recorder of the node's security events.
func NewSecurityLog(env Env, db *store.DB) (*securitylog.Recorder, error) {
	return securitylog.NewRecorder(db.SecurityEvents(), db.Clock().Now, env.Log, env.Config.Security)
}

// requestCredentials is how many credentials of requests are cached besides those of live
// connections.
const requestCredentials = 10_000

// NewSessions builds the domain of sessions, API keys and signing keys. With a hub
// it follows the log for revocations, and with a recorder it records failures; commands other than serve have neither.
func NewSessions(env Env, db *store.DB, sealer *secrets.Sealer, hub *eventlog.Hub, events *securitylog.Recorder) (s *session.Service, err error) {
	cfg := session.Config{
		NoRateLimit: !env.Config.RateLimit, AccessTTL: env.Config.AccessTokenTime, IdleTTL: env.Config.SessionIdleTime, SessionTTL: env.Config.SessionTime,
		CacheSize: env.Config.HTTP.Streams.Connections + requestCredentials, Stopwatch: time.Now, CheckAge: db.Clock().CheckAge,
	}
	if events != nil {
		cfg.Security = events.Record
	}
	if hub != nil {
		cfg.EventLog = hub
	}
	stored := WithRevocations(db, func() *session.Service { return s }).Sessions()
	s, err = session.NewService(stored, sealer, db.Clock().Now, env.Log, cfg)
	return s, err
}
