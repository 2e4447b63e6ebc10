package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Pauses between rounds of Run's work.
const (
	useInterval   = 10 * time.Second // writing when keys were used
	sweepInterval = time.Hour
	sweepBatch    = 1000 // rows in one transaction
)

// precision is what every database keeps of a time, so that what a call returns
// is what the next one reads.
const precision = time.Microsecond

// Service is what callers may do with credentials, and how a credential becomes
// a principal. It is safe for concurrent use.
type Service struct {
	store       Store
	now         func() time.Time
	log         *slog.Logger
	cfg         Config
	life        Lifetimes
	refresh     [32]byte // secret of refresh tokens
	ticket      [32]byte // secret of tickets
	hasher      *hasher
	gate        *gate
	ring        *ring
	tokens      *tokens
	sessions    *memo[uid.Session, *standing]
	keys        *memo[uid.APIKey, *standing]
	uses        *uses
	last        *lastKnown
	forServices serviceTokens
	feed        Log // nil if the log is not followed
	news        *news
}

// NewService returns a Service on the store that keeps its secrets in the box
// and tells the time by now. It does nothing until it is called; Follow, Prepare
// and Run belong to a server, short-lived commands do without.
func NewService(store Store, box *secrets.Box, now func() time.Time, log *slog.Logger, cfg Config) (*Service, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	tick := now // measures spans: it must not lose its monotonic part
	now = func() time.Time { return tick().UTC().Truncate(precision) }
	r := &ring{store: store, box: box, now: now, interval: cfg.KeyInterval, life: cfg.AccessTTL}
	heard := &news{life: cfg.AccessTTL, size: cfg.CacheSize, now: tick, heard: map[string]word{}}
	return &Service{
		store: store, now: now, log: log, cfg: cfg,
		life:     Lifetimes{cfg.IdleTTL, cfg.SessionTTL},
		refresh:  box.Derive("refresh"),
		ticket:   box.Derive("ticket"),
		hasher:   newHasher(cfg),
		gate:     &gate{store, box.Derive("throttle"), cfg, now, log},
		ring:     r,
		tokens:   newTokens(r, cfg, now),
		sessions: newMemo[uid.Session, *standing](cfg.AccessTTL, cfg.CacheSize, tick, heard.mark),
		keys:     newMemo[uid.APIKey, *standing](cfg.AccessTTL, cfg.CacheSize, tick, heard.mark),
		uses:     &uses{limit: cfg.CacheSize},
		last:     newLastKnown(cfg.CacheSize, now),
		news:     heard,
	}, nil
}

// Prepare reads the signing keys, and makes the first. A server calls it before
// it serves, so that a database or a secret key that is wrong ends the start.
func (s *Service) Prepare(ctx context.Context) error {
	_, err := s.ring.reload(ctx, 0)
	return err
}

// Run keeps the signing keys up to date, writes down which API keys were used,
// and removes what ended long ago, until ctx is cancelled; then it returns nil.
// What fails is logged and tried again in the next round.
func (s *Service) Run(ctx context.Context) error {
	rings, uses, sweeps := time.NewTicker(s.cfg.KeyInterval), time.NewTicker(useInterval), time.NewTicker(sweepInterval)
	defer rings.Stop()
	defer uses.Stop()
	defer sweeps.Stop()
	for {
		select {
		case <-rings.C:
			s.attempt(ctx, "reading the signing keys failed", s.Prepare)
		case <-uses.C:
			s.attempt(ctx, "writing the use of api keys failed", s.writeUses)
		case <-sweeps.C:
			s.attempt(ctx, "removing ended sessions failed", s.sweep)
		case <-ctx.Done():
			last, cancel := detach(ctx)
			defer cancel()
			s.attempt(last, "writing the use of api keys failed", s.writeUses)
			return nil
		}
	}
}

func (s *Service) attempt(ctx context.Context, failed string, work func(context.Context) error) {
	if err := work(ctx); err != nil && ctx.Err() == nil {
		s.log.ErrorContext(ctx, failed, "error", err)
	}
}

// sweep removes what ended long ago, a batch at a time, and spent signing keys.
func (s *Service) sweep(ctx context.Context) error {
	at := s.now()
	for {
		n, err := s.store.Sweep(ctx, at.Add(-keptAfterEnd), at, sweepBatch)
		if err != nil {
			return err
		}
		if n == 0 || ctx.Err() != nil {
			return s.ring.sweep(ctx)
		}
	}
}

// JWKS returns the JSON Web Key Set (RFC 7517) by which others verify our access
// tokens. It may be kept for KeyInterval. Callers must not change it.
func (s *Service) JWKS() []byte {
	if set := s.ring.keys.Load(); set != nil {
		return set.published
	}
	return []byte(`{"keys":[]}`)
}

// KeyInterval returns how long the key set may be kept.
func (s *Service) KeyInterval() time.Duration { return s.cfg.KeyInterval }

// RotateSigningKey makes a new signing key, which signs one KeyInterval from
// now, and records signing_key.rotated; tokens that the old one signed stay good
// until they expire. While a new key waits for its turn it makes none and returns
// that one. It is for the operator and checks no permission: no transport offers
// it.
func (s *Service) RotateSigningKey(ctx context.Context) (*SigningKey, error) {
	return s.ring.rotate(ctx)
}

// HashPassword returns the hash under which a password may be stored. It gives
// PASSWORD_INVALID for fewer than 10 characters or more than 1024 bytes, and
// SERVER_BUSY if too many wait for a hash already.
func (s *Service) HashPassword(ctx context.Context, password string) (string, error) {
	return s.hasher.hash(ctx, password)
}

// AllowSignUp counts a sign-up from the caller's address, or refuses it with
// RATE_LIMITED. Call it before HashPassword, which is what has to be guarded.
func (s *Service) AllowSignUp(ctx context.Context) error { return s.gate.signUp(ctx) }

// owns reports whether the caller may read or end what belongs to the user.
func owns(caller *auth.Principal, user uid.User) bool {
	return caller.Owns(user) || caller.Has(auth.Admin)
}
