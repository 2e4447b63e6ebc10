package main

import (
	"context"
	"fmt"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/session"
)

// tickets lets event streams be opened by the tickets of sessions and API keys.
type tickets struct{ sessions *session.Service }

var _ httpd.TicketAuthenticator = tickets{}

// AuthenticateTicket implements httpd.TicketAuthenticator.
func (t tickets) AuthenticateTicket(ctx context.Context, text string) (httpd.Ticket, error) {
	said, err := t.sessions.RedeemTicket(ctx, text)
	if err != nil {
		return httpd.Ticket{}, err
	}
	req, err := executor.Unpack(said.Purpose)
	if err != nil {
		return httpd.Ticket{}, fmt.Errorf("read a ticket of our own: %w", err)
	}
	return httpd.Ticket{Caller: connection.Caller{Principal: said.Principal, Check: said.Standing}, Request: req}, nil
}
