package membudget_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/uid"
)

// from returns the context of a user, or of an anonymous caller, at an address.
func from(ctx context.Context, user uid.User, address string) context.Context {
	ctx = auth.WithClient(ctx, auth.Client{Address: address})
	if user == "" {
		return ctx
	}
	return auth.With(ctx, &auth.Principal{UserID: user, Credential: auth.SessionCredential("ses_1")})
}

func TestGrant_Take_bounds_callers_addresses_and_the_node(t *testing.T) {
	t.Parallel()
	type holder struct {
		user    uid.User
		address string
		bytes   int64
	}
	for name, tt := range map[string]struct {
		held []holder
		call holder
		want fault.Code // empty if the bytes are free
	}{
		"a caller's share":               {nil, holder{"a", "192.0.2.1", 250}, ""},
		"a caller's share is used up":    {[]holder{{"a", "192.0.2.1", 200}}, holder{"a", "198.51.100.1", 100}, fault.RateLimited},
		"another caller":                 {[]holder{{"a", "192.0.2.1", 250}}, holder{"b", "192.0.2.1", 250}, ""},
		"an address's share is used up":  {[]holder{{"a", "192.0.2.1", 250}, {"b", "192.0.2.1", 250}}, holder{"c", "192.0.2.1", 1}, fault.RateLimited},
		"anonymous callers of a /64":     {[]holder{{"", "2001:db8::1", 250}}, holder{"", "2001:db8::2", 1}, fault.RateLimited},
		"anonymous callers of another":   {[]holder{{"", "2001:db8::1", 250}}, holder{"", "2001:db8:0:1::1", 250}, ""},
		"a user beside anonymous ones":   {[]holder{{"", "192.0.2.1", 250}}, holder{"a", "192.0.2.1", 250}, ""},
		"the node is used up":            {[]holder{{"a", "1.1.1.1", 250}, {"b", "1.1.1.2", 250}, {"c", "1.1.1.3", 250}, {"d", "1.1.1.4", 250}}, holder{"e", "1.1.1.5", 1}, fault.ServerBusy},
		"more than a share is cut to it": {nil, holder{"a", "192.0.2.1", 5000}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := membudget.New(1000, time.Second)
				for _, h := range tt.held {
					ctx := from(t.Context(), h.user, h.address)
					if err := b.Open(ctx).Take(ctx, h.bytes); err != nil {
						t.Fatal(err)
					}
				}
				ctx := from(t.Context(), tt.call.user, tt.call.address)
				err := b.Open(ctx).Take(ctx, tt.call.bytes)
				if got := codeOf(err); got != tt.want {
					t.Errorf("Take = %v, want %q", err, tt.want)
				}
			})
		})
	}
}

func codeOf(err error) fault.Code {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Code
	}
	return ""
}

func TestGrant_Take_waits_for_released_bytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := membudget.New(1000, time.Second)
		ctx := from(t.Context(), "a", "192.0.2.1")
		first, second := b.Open(ctx), b.Open(ctx)
		if err := first.Take(ctx, 250); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(500*time.Millisecond, first.Release)
		begun := time.Now()
		if err := second.Take(ctx, 200); err != nil || time.Since(begun) != 500*time.Millisecond {
			t.Errorf("Take = %v after %v, want the bytes once they are released", err, time.Since(begun))
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := b.Open(ctx).Take(gone, 200); !errors.Is(err, context.Canceled) {
			t.Errorf("Take for a caller that is gone = %v, want its context's error", err)
		}
	})
}

// TestGrants_never_exceed_the_budget takes and releases at random, from many goroutines.
func TestGrants_never_exceed_the_budget(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	b := membudget.New(size, time.Millisecond)
	var held atomic.Int64
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(n), 1))
			ctx := from(t.Context(), uid.User('a'+rune(n%5)), []string{"1.1.1.1", "2.2.2.2"}[n%2])
			for range 500 {
				g := b.Open(ctx)
				for range 3 {
					before := g.Bytes()
					switch rnd.IntN(3) {
					case 0:
						_ = g.Take(ctx, rnd.Int64N(size/4)) // it may be refused
					case 1:
						_ = g.TryTake(rnd.Int64N(size / 4))
					default:
						g.Shrink(rnd.Int64N(size / 8))
					}
					if now := held.Add(g.Bytes() - before); now > size {
						t.Errorf("%d bytes are held, want at most %d", now, size)
					}
				}
				held.Add(-g.Bytes())
				g.Release()
			}
		})
	}
	wg.Wait()
	for i, user := range []uid.User{"w", "x", "y", "z"} {
		ctx := from(t.Context(), user, []string{"1.1.1.1", "2.2.2.2"}[i%2])
		if err := b.Open(ctx).Take(ctx, size/4); err != nil {
			t.Errorf("released bytes are not free: %v", err)
		}
	}
}

func TestGrant_Reader_takes_bytes_before_it_reads_them(t *testing.T) {
	t.Parallel()
	b := membudget.New(1<<20, 100*time.Millisecond)
	ctx := from(t.Context(), "a", "192.0.2.1")
	for name, tt := range map[string]struct {
		bytes int
		want  fault.Code
		held  int64 // at least
	}{
		"a short body": {4 << 10, "", 0}, "a long body": {60 << 10, "", 4 * 56 << 10}, "a body beyond the share": {1 << 20, "", 256 << 10},
	} {
		g := b.Open(ctx)
		read, err := io.ReadAll(g.Reader(ctx, strings.NewReader(strings.Repeat("x", tt.bytes)), 4))
		if codeOf(err) != tt.want || err == nil && len(read) != tt.bytes || g.Bytes() < tt.held {
			t.Errorf("%s: read %d bytes, %v, with %d bytes taken; want %q and at least %d", name, len(read), err, g.Bytes(), tt.want, tt.held)
		}
		g.Release()
	}
	blocker := b.Open(ctx)
	if err := blocker.Take(ctx, 250<<10); err != nil {
		t.Fatal(err)
	}
	read, err := io.ReadAll(b.Open(ctx).Reader(ctx, strings.NewReader(strings.Repeat("x", 60<<10)), 4))
	if codeOf(err) != fault.RateLimited || len(read) > 8<<10 {
		t.Errorf("read %d bytes, %v, want RATE_LIMITED before they are read", len(read), err)
	}
}
