package app

import (
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
)

// NewGuard returns the guarded dialer (SSRF guard) of all calls to services. It
// never dials the listen address of this server, the database, Redis, the brokers of
// sinks or the admin listener, and dials private networks only as the operator allows.
func NewGuard(env Env, listen string) (*gateway.Guard, error) {
	_, embedded := env.Config.Database.SQLite()
	networks := env.Config.OutboundNetworks
	denied, err := deniedAddresses(env.Config)
	if err != nil {
		return nil, err
	}
	return gateway.NewGuard(gateway.Policy{AllPrivate: embedded && networks == nil, Private: networks, Denied: append(denied, listen)}, nil)
}

// deniedAddresses returns the host:port of each part of the system that no
// service can be at.
func deniedAddresses(cfg config.Config) (addresses []string, err error) {
	if _, embedded := cfg.Database.SQLite(); !embedded {
		if addresses, err = store.Addresses(string(cfg.Database)); err != nil {
			return nil, err
		}
	}
	if cfg.AdminListen != config.Off {
		addresses = append(addresses, cfg.AdminListen)
	}
	if cfg.RedisURL != "" {
		address, err := notify.RedisAddress(string(cfg.RedisURL))
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, address)
	}
	for _, s := range cfg.Sinks {
		addresses = append(addresses, s.HostPort())
	}
	return addresses, nil
}

// NewGateway builds the reverse proxy to the instances of services.
func NewGateway(env Env, guard *gateway.Guard, reg *Registry, sessions *session.Service, events *securitylog.Recorder) (*gateway.Gateway, error) {
	cfg := env.Config.Gateway
	cfg.BodyTime = env.Config.HTTP.BodyTime // one setting for all request bodies
	return gateway.New(gateway.Deps{Guard: guard, Directory: reg.Directory, Pool: reg.Pool, Tokens: sessions.ServiceToken, OnError: events.RecordError}, env.Log, cfg)
}
