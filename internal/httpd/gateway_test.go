package httpd_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/membudget"
)

// openGateway is a Gateway whose calls are open until their contexts end.
type openGateway struct{ causes chan error }

func (g openGateway) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	g.causes <- context.Cause(r.Context())
}

func (openGateway) Drain(context.Context) error { return nil }

// memoryGateway is a Gateway whose calls hold bytes of the memory budget, and report whether they were free.
type memoryGateway struct{ free chan bool }

func (g memoryGateway) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	g.free <- membudget.GrantFrom(r.Context()).TryTake(200)
}

func (memoryGateway) Drain(context.Context) error { return nil }

func TestServer_counts_the_memory_of_gateway_calls_until_they_end(t *testing.T) {
	t.Parallel()
	memory := membudget.New(1000, time.Second) // 250 for one caller
	g := memoryGateway{make(chan bool, 2)}
	s := newServer(t, httpd.Config{}, httpd.Deps{Auth: &mutableToken{}, Gateway: g, Memory: memory})
	for range 2 {
		answer(s, request("GET /gateway/echo/", "Authorization: Bearer a", ""))
		if !<-g.free {
			t.Error("the memory of the caller is not free after its last call")
		}
	}
	held := memory.Open(auth.With(t.Context(), &auth.Principal{UserID: "usr_1"}))
	defer held.Release()
	if err := held.Take(t.Context(), 200); err != nil {
		t.Fatal(err)
	}
	if answer(s, request("GET /gateway/echo/", "Authorization: Bearer a", "")); <-g.free {
		t.Error("a call does not count against the memory of its caller")
	}
}

// mutableToken is an Authenticator of one token.
type mutableToken struct {
	mu      sync.Mutex
	err     error
	last    *auth.Principal
	expires time.Time
}

func (a *mutableToken) set(err error, last *auth.Principal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err, a.last = err, last
}

func (a *mutableToken) Authenticate(context.Context, string) (*auth.Principal, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	return &auth.Principal{UserID: "usr_1"}, nil
}

func (a *mutableToken) Expiry(string) time.Time { return a.expires }

func (a *mutableToken) LastKnown(string) *auth.Principal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

func TestServer_ends_gateway_calls_with_their_credentials(t *testing.T) {
	t.Parallel()
	revoked, down := fault.New(fault.Unauthenticated, "No."), fault.New(fault.Unavailable, "The database is away.")
	known := &auth.Principal{UserID: "usr_1"}
	for name, tt := range map[string]struct {
		before    error // of the check that admits the call
		err       error // of the checks from then on
		last      *auth.Principal
		checkTime time.Duration // an hour if an event is to end the call
		lives     time.Duration // the token, from the beginning
		want      fault.Code    // why the call ends; empty if it does not
		after     time.Duration // how long after the change, at most
	}{
		"revoked, and an event says so":        {nil, revoked, nil, time.Hour, time.Hour, fault.Unauthenticated, 0},
		"revoked, without an event":            {nil, revoked, nil, time.Second, time.Hour, fault.Unauthenticated, time.Second},
		"expired":                              {nil, nil, nil, time.Hour, 3 * time.Second, fault.Unauthenticated, 3 * time.Second},
		"not checkable":                        {nil, down, nil, time.Second, time.Hour, fault.Unavailable, 11 * time.Second},
		"not checkable, but known":             {nil, down, known, time.Second, time.Hour, "", time.Minute},
		"not checkable from the beginning on":  {down, down, known, time.Second, time.Hour, "", time.Minute},
		"not checkable, then revoked":          {down, revoked, known, time.Second, time.Hour, fault.Unauthenticated, time.Second},
		"not checkable, and expired meanwhile": {down, down, known, time.Second, 3 * time.Second, fault.Unauthenticated, 3 * time.Second},
		"valid":                                {nil, nil, nil, time.Second, time.Hour, "", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := &mutableToken{expires: time.Now().Add(tt.lives)}
				a.set(tt.before, tt.last)
				g := openGateway{make(chan error, 1)}
				s := newServer(t, httpd.Config{Streams: connection.Config{CheckTime: tt.checkTime}}, httpd.Deps{Auth: a, Gateway: g})
				ctx, leave := context.WithCancel(t.Context())
				go answer(s, request("GET /gateway/echo/", "Authorization: Bearer a", "").WithContext(ctx))
				synctest.Wait()
				a.set(tt.err, tt.last)
				if tt.checkTime == time.Hour && tt.err != nil {
					s.Recheck(auth.Revocation{})
				}
				time.Sleep(tt.after + time.Millisecond)
				synctest.Wait()
				leave()
				got := fault.Code("")
				if cause := <-g.causes; cause != context.Canceled { //nolint:errorlint // a fault may wrap it
					got = fault.From(cause).Code
				}
				if got != tt.want {
					t.Errorf("the call ends with %q, want %q", got, tt.want)
				}
			})
		})
	}
}
