package streamtest

import (
	"context"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Tokens is an authenticator of tokens and tickets that a test controls.
type Tokens struct {
	mu     sync.Mutex
	users  map[string]uid.User
	expiry time.Time
	down   bool
	checks int
}

// Set makes the token one of the user's; of no user, it is revoked.
func (k *Tokens) Set(token string, user uid.User) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.users[token] = user
}

// Fail makes tokens uncheckable, as if the database were down.
func (k *Tokens) Fail(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
}

// Expire sets when all tokens expire.
func (k *Tokens) Expire(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expiry = at
}

// Checks returns how often a token was checked.
func (k *Tokens) Checks() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.checks
}

// Authenticate implements httpd.Authenticator.
func (k *Tokens) Authenticate(_ context.Context, token string) (*auth.Principal, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.checks++
	switch user := k.users[token]; {
	case k.down:
		return nil, fault.New(fault.Unavailable, "The database is away.")
	case user == "":
		return nil, fault.New(fault.Unauthenticated, "No.")
	default:
		return &auth.Principal{UserID: user, Credential: auth.SessionCredential("ses_1")}, nil
	}
}

// Expiry implements httpd.Expirer.
func (k *Tokens) Expiry(string) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.expiry
}

// AuthenticateTicket implements httpd.TicketAuthenticator: tokens are tickets too, each made
// for ticks.
func (k *Tokens) AuthenticateTicket(ctx context.Context, ticket string) (httpd.Ticket, error) {
	check := func(ctx context.Context) (*auth.Principal, error) { return k.Authenticate(ctx, ticket) }
	p, err := check(ctx)
	return httpd.Ticket{Caller: connection.Caller{Principal: p, Check: check}, Request: executor.Request{Query: "subscription{ticks}"}}, err
}
