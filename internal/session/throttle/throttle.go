// Package throttle slows down guesses at passwords and at the names of other accounts, and floods of
// sign-ups.
//
// A Limiter counts an attempt before the password is checked, so that parallel
// guesses cannot pass together, and takes the failure back if the guess was right.
// Right guesses have limits of their own, since each costs a hash and a session.
// Counters are shared by all nodes, through a Store, and are named by an HMAC, so
// that the database does not reveal which account was tried from where. No counter
// of sign-ins is for an account alone: an attacker could lock its owner out.
package throttle

import (
	"context"
	"encoding/hex"
	"log/slog"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/bounded"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/uid"
)

// nameWindow is how long a sign-up or a request for another name counts.
const nameWindow = time.Hour

// A node refuses from memory what the store has refused less than recheckInterval ago: a flood of
// refused attempts costs no transactions. Counts that other nodes give back take effect after that.
const (
	recheckInterval = 5 * time.Second
	maxFull         = 10_000 // full counters in memory
)

// giveBackTimeout bounds giving counts back, which outlives the request.
const giveBackTimeout = 5 * time.Second

// Counter is a limit on how often something may happen within a window of time,
// on all nodes together. A window starts with the first count.
type Counter struct {
	Name   string // at most 64 ASCII characters; does not reveal the account or address
	Limit  int
	Window time.Duration
}

// Store counts attempts.
type Store interface {
	// Take adds one to each of the counters if all are below their limits, else to
	// none: then it returns the name of one that is full, and how long it stays so. It is exact:
	// of any number of parallel calls no more succeed than the limits allow. A
	// counter whose window ended at or before the given time starts anew. It takes
	// its locks by Name and claims nothing.
	Take(ctx context.Context, counters []Counter, at time.Time) (full string, wait time.Duration, err error)
	// GiveBack resets the counters named by reset and takes one from those named by
	// less, never below zero, in the order of their names. Counters that do not
	// exist are passed over.
	GiveBack(ctx context.Context, reset, less []string) error
}

// Config holds the limits. All of them must be set.
type Config struct {
	SignInsPerAccount  int           // failed sign-ins of one account from one address
	SignInsPerAddress  int           // failed sign-ins from one address
	AttemptsPerAccount int           // sign-ins of one account from one address, successful or not
	AttemptsPerAddress int           // sign-ins from one address, successful or not
	SignInWindow       time.Duration // within this time
	SignUpsPerAddress  int           // sign-ups from one address within an hour
	NamesPerUser       int           // other names that a user asks for within an hour
	NamesPerAddress    int           // other names that users ask for from one address within an hour
	Disabled           bool          // let everything pass: for benchmarks and tests
}

// Limiter limits attempts by the caller's address. It is safe for concurrent use.
type Limiter struct {
	store  Store
	secret [secrets.Size]byte
	cfg    Config
	now    func() time.Time
	log    *slog.Logger
	full   *bounded.Map[string, time.Time] // counters that were full a moment ago, and when their windows end
}

// NewLimiter returns a Limiter whose counters are named under the secret.
func NewLimiter(store Store, secret [secrets.Size]byte, cfg Config, now func() time.Time, log *slog.Logger) *Limiter {
	return &Limiter{store, secret, cfg, now, log, bounded.NewMap[string, time.Time](maxFull)}
}

// Attempt is a guess that was counted, by the names of its counters.
type Attempt struct {
	failures      counterNames // given back by a right guess
	verifications counterNames // kept: a hash costs the same, whatever its outcome
}

// counterNames are the counters of an account from an address, and of the address.
type counterNames struct{ accountAndAddress, address string }

// Begin counts a guess at the password of an account, known or not, from the
// caller's address, or refuses it with RATE_LIMITED. The caller passes the
// outcome to Finish.
func (l *Limiter) Begin(ctx context.Context, account string) (Attempt, error) {
	from := auth.ClientFrom(ctx).Network()
	names := func(kind string) counterNames {
		return counterNames{l.counterName(kind, account, from), l.counterName(kind, from)}
	}
	a := Attempt{names("sign-in"), names("verification")}
	return a, l.countAttempts(ctx,
		Counter{a.failures.accountAndAddress, l.cfg.SignInsPerAccount, l.cfg.SignInWindow},
		Counter{a.failures.address, l.cfg.SignInsPerAddress, l.cfg.SignInWindow},
		Counter{a.verifications.accountAndAddress, l.cfg.AttemptsPerAccount, l.cfg.SignInWindow},
		Counter{a.verifications.address, l.cfg.AttemptsPerAddress, l.cfg.SignInWindow})
}

// Finish records how a counted guess ended. A right one (a nil error) resets the
// failures of account and address, but not those of the address: the owner of one
// account could guess at others for ever. It stays counted as a verification: a caller
// with an account could hash for ever. A wrong one (CREDENTIALS_WRONG) stays
// counted; one that was not checked, for any other error, does not.
func (l *Limiter) Finish(ctx context.Context, a Attempt, err error) {
	switch {
	case err == nil:
		l.giveBack(ctx, []string{a.failures.accountAndAddress}, []string{a.failures.address})
	case !fault.Is(err, fault.CredentialsWrong):
		l.giveBack(ctx, nil, []string{a.failures.accountAndAddress, a.failures.address, a.verifications.accountAndAddress, a.verifications.address})
	}
}

// AllowSignUp counts a sign-up from the caller's address, or refuses it with
// RATE_LIMITED.
func (l *Limiter) AllowSignUp(ctx context.Context) error {
	from := auth.ClientFrom(ctx).Network()
	return l.countAttempts(ctx, Counter{l.counterName("sign-up", from), l.cfg.SignUpsPerAddress, nameWindow})
}

// AllowNameChange counts a request of a signed-in user for another user name or email address, which
// says whether that is taken, or refuses it with RATE_LIMITED.
func (l *Limiter) AllowNameChange(ctx context.Context, by uid.User) error {
	from := auth.ClientFrom(ctx).Network()
	return l.countAttempts(ctx,
		Counter{l.counterName("name", "user", string(by)), l.cfg.NamesPerUser, nameWindow},
		Counter{l.counterName("name", "address", from), l.cfg.NamesPerAddress, nameWindow})
}

func (l *Limiter) countAttempts(ctx context.Context, counters ...Counter) error {
	if l.cfg.Disabled {
		return nil
	}
	at := l.now()
	for _, c := range counters {
		if ends, until := l.full.Get(c.Name); dbclock.Live(until, recheckInterval, at) {
			return errLimited(ends.Sub(at))
		}
	}
	full, wait, err := l.store.Take(ctx, counters, at)
	if err != nil || wait <= 0 {
		return err
	}
	l.full.Put(full, at.Add(wait), at.Add(min(wait, recheckInterval)), at)
	return errLimited(wait)
}

func errLimited(wait time.Duration) *fault.Error {
	return fault.New(fault.RateLimited, "Too many tries from your network; wait a while.").After(wait)
}

// giveBack outlives the request: a caller that hangs up must not stay counted.
// If it fails the caller waits longer than it should, no more.
func (l *Limiter) giveBack(ctx context.Context, reset, less []string) {
	if l.cfg.Disabled {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	if err := l.store.GiveBack(ctx, reset, less); err != nil {
		l.log.WarnContext(ctx, "sign-in throttle: giving back a counted attempt failed; its caller waits longer", "error", err)
	}
	for _, name := range slices.Concat(reset, less) {
		l.full.Delete(name)
	}
}

func (l *Limiter) counterName(parts ...string) string {
	return hex.EncodeToString(secrets.MAC(l.secret, parts...)[:16])
}
