package session

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session/password"
	"github.com/backplane-dev/backplane/internal/session/throttle"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Pauses between rounds of Run's work.
const (
	flushInterval = 10 * time.Second // storing when keys were used
	firstSweep    = time.Minute      // after the start, also of nodes that restart more often than they sweep
	sweepInterval = time.Hour
	sweepBatch    = 1000 // rows in one transaction
)

// precision is what every database keeps of a time, so that what a call returns
// is what the next one reads.
const precision = time.Microsecond

// Service is what callers may do with credentials, and how a credential becomes
// a principal. It is safe for concurrent use.
type Service struct {
	store         Store
	now           func() time.Time
	log           *slog.Logger
	cfg           Config
	lifetimes     Lifetimes
	refreshSecret [secrets.Size]byte
	ticketSecret  [secrets.Size]byte
	passwords     *password.Hasher
	limiter       *throttle.Limiter
	signingKeys   *token.KeyRing
	accessTokens  *token.AccessTokens
	serviceTokens *token.ServiceTokens
	sessionStates *stateCache
	keyStates     *stateCache
	uses          *usageRecorder
	revocations   *revocationLog
	lastKnown     *principalCache
	verifiers     []verifier
	expiring      atomic.Int64 // API keys that end within ExpiryNotice, as of the last sweep
}

// NewService returns a Service on the store that seals its secrets with the sealer
// and reads the time by now. It does nothing until it is called; an event log, Prepare
// and Run belong to a server, short-lived commands do without.
func NewService(store Store, sealer *secrets.Sealer, now func() time.Time, log *slog.Logger, cfg Config) (*Service, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	tick, clock := cfg.Stopwatch, now
	if tick == nil {
		tick = now
	}
	now = func() time.Time { return clock().UTC().Truncate(precision) }
	keys := token.NewKeyRing(store, sealer, cfg.tokenConfig(), now)
	s := &Service{
		store: store, now: now, log: log, cfg: cfg,
		lifetimes:     Lifetimes{cfg.IdleTTL, cfg.SessionTTL},
		refreshSecret: sealer.Derive("refresh"),
		ticketSecret:  sealer.Derive("ticket"),
		passwords:     password.NewHasher(cfg.passwordConfig()),
		limiter:       throttle.NewLimiter(store, sealer.Derive("throttle"), cfg.throttleConfig(), now, log),
		signingKeys:   keys,
		accessTokens:  token.NewAccessTokens(keys, cfg.tokenConfig(), now),
		serviceTokens: token.NewServiceTokens(keys, cfg.tokenConfig(), now),
		uses:          &usageRecorder{limit: cfg.CacheSize},
		revocations:   newRevocationLog(cfg.AccessTTL, cfg.CacheSize, tick, now),
		lastKnown:     newPrincipalCache(cfg.CacheSize, now),
	}
	s.sessionStates = s.newStateCache(s.readSessionState, tick)
	s.keyStates = s.newStateCache(s.readKeyState, tick)
	s.verifiers = newVerifiers(s)
	if cfg.EventLog != nil {
		s.revocations.eventLog = cfg.EventLog
		cfg.EventLog.OnDeliver(func(events []*event.Event, gap bool) {
			s.dropRevokedKeys(events)
			s.revocations.onEvents(events, gap)
		})
		cfg.EventLog.OnPending(func(events []*event.Event) {
			s.dropRevokedKeys(events)
			s.revocations.onEvents(events, false)
		})
	}
	return s, nil
}

func (s *Service) newStateCache(read readState, tick func() time.Time) *stateCache {
	reads := newReadCache[string, *credentialState](s.cfg.AccessTTL, s.cfg.CacheSize, tick, s.revocations.currentSequence)
	return &stateCache{reads, s.revocations, read, s.now}
}

// Prepare reads the signing keys, and makes the first. A server calls it before
// it serves, so that a database or a secret key that is wrong ends the start.
func (s *Service) Prepare(ctx context.Context) error { return s.signingKeys.Load(ctx) }

// Run keeps the signing keys up to date, stores which API keys were used, and
// removes what ended long ago, until ctx is cancelled; then it returns nil. A
// failure is logged and tried again in the next round.
func (s *Service) Run(ctx context.Context) error {
	reloads, flushes, sweeps := time.NewTicker(s.cfg.KeyInterval), time.NewTicker(flushInterval), time.NewTicker(firstSweep)
	defer reloads.Stop()
	defer flushes.Stop()
	defer sweeps.Stop()
	for {
		select {
		case <-reloads.C:
			s.logFailure(ctx, "reading the signing keys failed", s.Prepare)
		case <-flushes.C:
			s.logFailure(ctx, "storing the use of api keys failed", s.flushKeyUses)
		case <-sweeps.C:
			sweeps.Reset(sweepInterval)
			s.logFailure(ctx, "removing ended sessions failed", s.removeEnded)
			s.logFailure(ctx, "announcing API keys that end soon failed", s.announceExpiring)
		case <-ctx.Done():
			last, cancel := detachContext(ctx)
			defer cancel()
			s.logFailure(last, "storing the use of api keys failed", s.flushKeyUses)
			return nil
		}
	}
}

func (s *Service) logFailure(ctx context.Context, message string, work func(context.Context) error) {
	if err := work(ctx); err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, message, "error", err)
	}
}

// removeEnded removes what ended long ago, a batch at a time, and retired signing keys.
func (s *Service) removeEnded(ctx context.Context) error {
	if check := s.cfg.CheckAge; check != nil && check() != nil {
		return nil //nolint:nilerr // the clock reports it
	}
	at := s.now()
	for {
		n, err := s.store.Sweep(ctx, at.Add(-keptAfterEnd), at, sweepBatch)
		if err != nil {
			return err
		}
		if n == 0 || ctx.Err() != nil {
			return s.signingKeys.RemoveRetired(ctx)
		}
	}
}

// announceExpiring announces the keys that end within ExpiryNotice, a batch at a time, and counts them.
func (s *Service) announceExpiring(ctx context.Context) error {
	if check := s.cfg.CheckAge; check != nil && check() != nil {
		return nil //nolint:nilerr // the clock reports it
	}
	now := s.now()
	for n := sweepBatch; n == sweepBatch && ctx.Err() == nil; {
		var err error
		if n, err = s.store.AnnounceExpiring(ctx, now, now.Add(ExpiryNotice), sweepBatch); err != nil {
			return err
		}
	}
	_, n, err := s.store.ExpiringKeys(ctx, now, now.Add(ExpiryNotice), 0)
	if err == nil {
		s.expiring.Store(int64(n))
	}
	return err
}

// ExpiringKeys returns how many API keys end within ExpiryNotice, as of the last sweep.
func (s *Service) ExpiringKeys() int64 { return s.expiring.Load() }

// JWKS returns the JSON Web Key Set (RFC 7517) by which others verify our access
// tokens. It may be cached for Config.KeyInterval. Callers must not change it.
func (s *Service) JWKS() []byte { return s.signingKeys.JWKS() }

// RotateSigningKey makes a new signing key, which signs two KeyIntervals from
// now, and records signing_key.rotated; tokens that the old one signed stay valid
// until they expire. While a new key does not sign yet it makes none and returns
// that one. It is for the operator and checks no permission: no transport offers
// it.
func (s *Service) RotateSigningKey(ctx context.Context) (*token.SigningKey, error) {
	return s.signingKeys.Rotate(ctx)
}

// RevokeSigningKey removes a signing key at once, on all nodes as soon as they read it in the
// event log: who got hold of it cannot sign tokens any more, and everyone with a token of it
// refreshes it. It is for the operator and checks no permission: no transport offers it.
func (s *Service) RevokeSigningKey(ctx context.Context, id string) (*token.SigningKey, error) {
	return s.signingKeys.Revoke(ctx, id)
}

// dropRevokedKeys drops the signing keys that the events revoke, and what is known by them.
func (s *Service) dropRevokedKeys(events []*event.Event) {
	for _, e := range events {
		if e.Type == token.EventSigningKeyRevoked {
			s.signingKeys.Drop(e.SubjectID)
			s.lastKnown.clear()
		}
	}
}

// ServiceToken returns a token by which the service of the name verifies that the
// caller is calling it, see token.ServiceTokens.
func (s *Service) ServiceToken(ctx context.Context, caller *auth.Principal, service string) (string, error) {
	return s.serviceTokens.Issue(ctx, caller, service)
}

// CheckPassword returns PASSWORD_INVALID for a new password that an account with the names may not have, as
// HashPassword does.
func CheckPassword(text string, names ...string) error { return password.CheckNew(text, names...) }

// HashPassword returns the hash under which a new password of an account with the names
// may be stored. It gives PASSWORD_INVALID for fewer than 10 characters, more than 1024 bytes
// and what password.CheckNew refuses, and SERVER_BUSY if too many callers wait for a hash already.
func (s *Service) HashPassword(ctx context.Context, text string, names ...string) (string, error) {
	if err := password.CheckNew(text, names...); err != nil {
		return "", err
	}
	account := ""
	if caller := auth.From(ctx); caller != nil {
		account = string(caller.UserID)
	}
	return s.passwords.Hash(ctx, account, text)
}

// AllowSignUp counts a sign-up from the caller's address, or refuses it with
// RATE_LIMITED. Call it before HashPassword, whose cost it bounds.
func (s *Service) AllowSignUp(ctx context.Context) error {
	return refuseLimited(s.limiter.AllowSignUp(ctx), limitedSignUp)
}

// AllowNameChange counts a request of the user for another user name or email address, or refuses it
// with RATE_LIMITED. It implements user.NameLimiter.
func (s *Service) AllowNameChange(ctx context.Context, by uid.User) error {
	return refuseLimited(s.limiter.AllowNameChange(ctx, by), limitedNameChange)
}

// mayManage reports whether the caller may read or end what belongs to the user.
func mayManage(caller *auth.Principal, user uid.User) bool {
	return caller.Owns(user) || caller.Has(auth.Admin)
}
