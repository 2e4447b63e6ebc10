package connection

import (
	"time"

	"github.com/backplane-dev/backplane/internal/setting"
)

// Config tunes a Server. The zero value is ready to use; Settings says what each
// field means.
type Config struct {
	Connections, PerPrincipal int
	Operations                int
	Subscriptions             int
	PrincipalSubscriptions    int
	MessageBytes              int
	MessageTime               time.Duration
	InitTime                  time.Duration
	IdleTime                  time.Duration
	KeepAlive                 time.Duration
	StallTime                 time.Duration
	CheckTime                 time.Duration
}

// Settings declares the tunables.
func (c *Config) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Count(&c.Connections, "LIMIT_CONNECTIONS", 20_000, "WebSockets, event streams and reservations that are open on this node at the same time"),
		setting.Count(&c.PerPrincipal, "LIMIT_USER_CONNECTIONS", 2_500, "of them, those of one user, or of one address for anonymous callers"),
		setting.Count(&c.Operations, "LIMIT_SOCKET_OPERATIONS", 100, "operations that run at the same time on one WebSocket or single connection"),
		setting.Count(&c.Subscriptions, "LIMIT_SUBSCRIPTIONS", 40_000, "subscriptions that are live on this node at the same time"),
		setting.Count(&c.PrincipalSubscriptions, "LIMIT_USER_SUBSCRIPTIONS", 5_000, "of them, those of one user, or of one address for anonymous callers"),
		setting.Count(&c.MessageBytes, "LIMIT_MESSAGE_BYTES", 1<<20, "bytes of a WebSocket message"),
		setting.Internal(&c.MessageTime, 10*time.Second, "time to receive a message once it has begun"),
		setting.Duration(&c.InitTime, "LIMIT_INIT_TIME", 10*time.Second, "time from the upgrade of a WebSocket to its `connection_init`, and from a reservation to its stream"),
		setting.Duration(&c.IdleTime, "LIMIT_SOCKET_IDLE_TIME", 5*time.Minute, "time after which a WebSocket without operations and messages is closed"),
		setting.Duration(&c.KeepAlive, "LIMIT_KEEP_ALIVE", 15*time.Second, "interval of keep-alives on a quiet WebSocket or event stream"),
		setting.Duration(&c.StallTime, "LIMIT_STALL_TIME", 5*time.Minute, "time after which a connection is closed whose client takes nothing of what waits in its send buffer"),
		setting.Internal(&c.CheckTime, followedCheckTime, "interval of checks of a connection's credential without an event about it"),
	}
}

// Default intervals of checks: of connections that are told of revocations, and of others.
const (
	followedCheckTime   = 30 * time.Second
	unfollowedCheckTime = time.Second
)

func (c Config) withDefaults() (Config, error) {
	err := setting.ApplyDefaults("connection config", c.Settings())
	return c, err
}
