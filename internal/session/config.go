package session

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/session/password"
	"github.com/backplane-dev/backplane/internal/session/throttle"
	"github.com/backplane-dev/backplane/internal/session/token"
)

// Lifetimes and sizes that are promises, not tunables.
const (
	reuseGrace     = 30 * time.Second // a refresh token may come back this long after it was exchanged
	maxAccessTTL   = 5 * time.Minute
	maxLiveKeys    = 50  // API keys of one user
	maxListed      = 100 // sessions or API keys in one answer
	maxKeyLife     = 366 * 24 * time.Hour
	defaultKeyLife = 90 * 24 * time.Hour
	keptAfterEnd   = 30 * 24 * time.Hour // how long ended sessions can still be read
)

// Config tunes a Service. The zero value is ready to use.
type Config struct {
	Issuer      string        // iss of access tokens; default backplane
	Audience    string        // aud of access tokens, and the only one accepted; default backplane
	AccessTTL   time.Duration // life of an access token; default and at most 5m
	IdleTTL     time.Duration // a session ends if it is not refreshed for this long; default 720h (30 days)
	SessionTTL  time.Duration // a session ends this long after it was opened; default 2160h (90 days)
	KeyInterval time.Duration // signing keys are read again this often, and published twice as long before they sign; default 1m
	MaxSessions int           // live sessions of one user, the least recently used is revoked first; default 100

	Hashers   int // passwords hashed at a time; default one a core
	HashQueue int // callers that may wait for a hash; default 100
	CacheSize int // access tokens, sessions and API keys cached, each; default 10000

	SignInsPerAccount  int           // failed sign-ins of one account from one address; default 10
	SignInsPerAddress  int           // failed sign-ins from one address; default 100
	AttemptsPerAccount int           // sign-ins of one account from one address, successful or not; default 40
	AttemptsPerAddress int           // sign-ins from one address, successful or not; default 400
	SignInWindow       time.Duration // within this time; default 15m
	SignUpsPerAddress  int           // sign-ups from one address within an hour; default 20
	NamesPerUser       int           // other user names and email addresses that a user asks for within an hour; default 20
	NamesPerAddress    int           // the same from one address; default 60
	NoRateLimit        bool          // let everything pass: for benchmarks and tests

	// Security records failures and refusals; nil for none. The store records changes and successes.
	Security func(security.Event)

	// With EventLog the service trusts cached states of sessions and keys until the log says otherwise.
	// While the node's reader of the log lags more than a second, requests wait for its next read; if
	// that does not suffice, each asks the database. Without it, a cached state is trusted for a second.
	EventLog Log

	// Stopwatch measures spans within this process: a monotonic time, which need not be the present;
	// default the clock of the service. CheckAge returns why nothing is to be removed by its age,
	// or nil; by default it always is.
	Stopwatch func() time.Time
	CheckAge  func() error

	hashCost password.Cost // zero for the default; tests lower it
}

func (c Config) passwordConfig() password.Config {
	return password.Config{Concurrency: c.Hashers, Queue: c.HashQueue, Cost: c.hashCost}
}

func (c Config) throttleConfig() throttle.Config {
	return throttle.Config{
		SignInsPerAccount: c.SignInsPerAccount, SignInsPerAddress: c.SignInsPerAddress,
		AttemptsPerAccount: c.AttemptsPerAccount, AttemptsPerAddress: c.AttemptsPerAddress, SignInWindow: c.SignInWindow,
		SignUpsPerAddress: c.SignUpsPerAddress, NamesPerUser: c.NamesPerUser, NamesPerAddress: c.NamesPerAddress, Disabled: c.NoRateLimit,
	}
}

func (c Config) tokenConfig() token.Config {
	return token.Config{Issuer: c.Issuer, Audience: c.Audience, AccessTTL: c.AccessTTL, KeyInterval: c.KeyInterval, CacheSize: c.CacheSize}
}

// withDefaults returns the configuration with every default in place, or says
// which value cannot be.
func (c Config) withDefaults() (Config, error) {
	if c.AccessTTL < 0 || c.AccessTTL > maxAccessTTL {
		return c, fmt.Errorf("session config: access tokens must live at most %s, not %s", maxAccessTTL, c.AccessTTL)
	}
	if min(c.IdleTTL, c.SessionTTL, c.KeyInterval, c.SignInWindow) < 0 {
		return c, errors.New("session config: a time below zero")
	}
	if min(c.MaxSessions, c.Hashers, c.HashQueue, c.CacheSize, c.SignInsPerAccount, c.SignInsPerAddress, c.AttemptsPerAccount, c.AttemptsPerAddress, c.SignUpsPerAddress, c.NamesPerUser, c.NamesPerAddress) < 0 {
		return c, errors.New("session config: a limit below zero")
	}
	const day = 24 * time.Hour
	c.Issuer = cmp.Or(c.Issuer, "backplane")
	c.Audience = cmp.Or(c.Audience, "backplane")
	c.AccessTTL = cmp.Or(c.AccessTTL, maxAccessTTL)
	c.IdleTTL = cmp.Or(c.IdleTTL, 30*day)
	c.SessionTTL = cmp.Or(c.SessionTTL, 90*day)
	c.KeyInterval = cmp.Or(c.KeyInterval, time.Minute)
	c.MaxSessions = cmp.Or(c.MaxSessions, 100)
	c.CacheSize = cmp.Or(c.CacheSize, 10_000)
	c.SignInsPerAccount = cmp.Or(c.SignInsPerAccount, 10)
	c.SignInsPerAddress = cmp.Or(c.SignInsPerAddress, 100)
	c.AttemptsPerAccount = cmp.Or(c.AttemptsPerAccount, 40)
	c.AttemptsPerAddress = cmp.Or(c.AttemptsPerAddress, 400)
	c.SignInWindow = cmp.Or(c.SignInWindow, 15*time.Minute)
	c.SignUpsPerAddress = cmp.Or(c.SignUpsPerAddress, 20)
	c.NamesPerUser = cmp.Or(c.NamesPerUser, 20)
	c.NamesPerAddress = cmp.Or(c.NamesPerAddress, 60)
	return c, nil
}
