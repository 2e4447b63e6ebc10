package session

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// signUpWindow is how long a sign-up counts against its address.
const signUpWindow = time.Hour

// gate slows down whoever guesses. It counts before the guess is looked at, so
// that parallel guesses cannot pass together, and takes the count back if the
// guess was right. Nobody is counted by account alone: a stranger could lock the
// owner out.
type gate struct {
	counts Throttle
	secret [32]byte // names of counters must not tell who tried what
	cfg    Config
	now    func() time.Time
	log    *slog.Logger
}

// try is a guess that was counted.
type try struct{ pair, address string }

// enter counts a guess at the password of an account, known or not, from the
// caller's address, or refuses it with RATE_LIMITED.
func (g *gate) enter(ctx context.Context, account string) (try, error) {
	from := network(auth.ClientFrom(ctx).Address)
	t := try{g.name("sign-in", account, from), g.name("sign-in", from)}
	return t, g.take(ctx,
		Counter{t.pair, g.cfg.SignInsPerAccount, g.cfg.SignInWindow},
		Counter{t.address, g.cfg.SignInsPerAddress, g.cfg.SignInWindow})
}

// settle says how a counted guess ended. A right one forgives the pair what it
// got wrong before, but not the address: who owns one account could guess at
// others for ever. A wrong one stays counted; one that nobody looked at does not.
func (g *gate) settle(ctx context.Context, t try, err error) {
	switch {
	case err == nil:
		g.giveBack(ctx, []string{t.pair}, []string{t.address})
	case !fault.Is(err, fault.CredentialsWrong):
		g.giveBack(ctx, nil, []string{t.pair, t.address})
	}
}

// signUp counts a sign-up from the caller's address, or refuses it with
// RATE_LIMITED.
func (g *gate) signUp(ctx context.Context) error {
	from := network(auth.ClientFrom(ctx).Address)
	return g.take(ctx, Counter{g.name("sign-up", from), g.cfg.SignUpsPerAddress, signUpWindow})
}

func (g *gate) take(ctx context.Context, counters ...Counter) error {
	if g.cfg.NoRateLimit {
		return nil
	}
	wait, err := g.counts.Take(ctx, counters, g.now())
	if err != nil || wait <= 0 {
		return err
	}
	e := fault.New(fault.Exhausted, fault.RateLimited, "Too many tries from your network; wait a while.")
	e.RetryAfter = wait
	return e
}

// giveBack outlives the request: a caller that hangs up must not stay counted.
// If it fails the caller waits longer than it should, no more.
func (g *gate) giveBack(ctx context.Context, reset, less []string) {
	if g.cfg.NoRateLimit {
		return
	}
	ctx, cancel := detach(ctx)
	defer cancel()
	if err := g.counts.GiveBack(ctx, reset, less); err != nil {
		g.log.WarnContext(ctx, "giving back a counted try failed", "error", err)
	}
}

// name names a counter by what it counts, without saying what that is.
func (g *gate) name(parts ...string) string {
	return hex.EncodeToString(mac(g.secret, parts...)[:16])
}

// network returns what counts as one address: of IPv6 the /64, since whoever
// has one address has them all.
func network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address // unknown origins share one counter
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64) // 64 bits always fit
	return p.String()
}

// mac returns the HMAC-SHA256 of the parts, each after its length, so that no
// two lists of parts are one message.
func mac(secret [32]byte, parts ...string) []byte {
	h := hmac.New(sha256.New, secret[:])
	for _, p := range parts {
		h.Write([]byte(strconv.Itoa(len(p)) + ":" + p)) // documented never to fail
	}
	return h.Sum(nil)
}

// detachTimeout ends work that outlives its request.
const detachTimeout = 5 * time.Second

func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
}
