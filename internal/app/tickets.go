package app

import (
	"context"
	"fmt"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/session"
)

// tickets redeems the stream tickets of sessions and API keys.
type tickets struct{ sessions *session.Service }

var _ httpd.TicketAuthenticator = tickets{}

// AuthenticateTicket implements httpd.TicketAuthenticator.
func (t tickets) AuthenticateTicket(ctx context.Context, text string) (httpd.Ticket, error) {
	redeemed, err := t.sessions.RedeemTicket(ctx, text)
	if err != nil {
		return httpd.Ticket{}, err
	}
	req, err := executor.Unpack(redeemed.Purpose)
	if err != nil {
		return httpd.Ticket{}, fmt.Errorf("decode the request of a stream ticket: %w", err)
	}
	return httpd.Ticket{Caller: connection.Caller{Principal: redeemed.Principal, Check: redeemed.Revalidate}, Request: req}, nil
}
