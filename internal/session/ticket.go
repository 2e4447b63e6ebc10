package session

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/security"
)

// ticketTTL is how long a ticket opens streams: as long as an access token, since
// a ticket found in a log or a history is worth as much as one.
const ticketTTL = 5 * time.Minute

// maxTicket bounds the text of a ticket, in bytes. It travels in a URL, of which
// many proxies take no more than 8 KiB.
const maxTicket = 6 << 10

// ticketPrefix is how tickets begin, so that secret scanners find them.
const ticketPrefix = "bpt_"

// Ticket is a bearer token for one purpose, on behalf of the session or API key
// that it was made with. It is not stored: its text holds all of it, under an HMAC
// that only this installation can compute.
type Ticket struct {
	Text      string
	ExpiresAt time.Time
}

// TicketContents is what a ticket states.
type TicketContents struct {
	Principal *auth.Principal
	Purpose   []byte // as it was given to CreateTicket
	// Revalidate returns the principal as it is now, for a stream that the ticket
	// has opened: it depends on the session or key, not on the ticket, which may
	// have expired.
	Revalidate func(ctx context.Context) (*auth.Principal, error)
}

// CreateTicket returns a ticket of the caller for a purpose, which every bearer of
// the ticket can read. It needs a session or an API key; a purpose that is too
// long for a URL is BODY_TOO_LARGE.
func (s *Service) CreateTicket(ctx context.Context, purpose []byte) (*Ticket, error) {
	caller := auth.From(ctx)
	if caller == nil {
		return nil, auth.NotSignedIn(ctx)
	}
	expires := s.now().Add(ticketTTL).Truncate(time.Second)
	t := ticket{caller.Credential.ID, expires, purpose}
	text := t.encodeTicket(s.ticketSecret)
	if len(text) > maxTicket {
		return nil, fault.New(fault.BodyTooLarge,
			"Document and variables are too long for a ticket, which stands in a URL. Ask for the stream by POST.").At("query")
	}
	return &Ticket{text, expires}, nil
}

// RedeemTicket returns what a ticket states, any number of times until it expires
// or its session or key ends. The error is UNAUTHENTICATED for everything that is
// wrong with it, and UNAVAILABLE if that cannot be decided without the database.
func (s *Service) RedeemTicket(ctx context.Context, text string) (*TicketContents, error) {
	t, ok := parseTicket(s.ticketSecret, text)
	switch err := fault.New(fault.Unauthenticated, "The ticket is not valid; make a new one."); {
	case !ok:
		return nil, security.Refuse(security.CredentialRefused, credentialUnknown, err)
	case !dbclock.Live(t.expires, ticketTTL, s.now()):
		return nil, security.Refuse(security.CredentialRefused, credentialExpired, err)
	}
	revalidate := func(ctx context.Context) (*auth.Principal, error) { return s.revalidate(ctx, t.credentialID) }
	p, err := revalidate(ctx)
	if err != nil {
		return nil, err
	}
	return &TicketContents{p, t.purpose, revalidate}, nil
}

// ticket is the payload of a ticket.
type ticket struct {
	credentialID string // of a session or API key
	expires      time.Time
	purpose      []byte
}

// The parts of a ticket: the HMAC, when it expires in Unix seconds, the length of
// the credential's id in one byte, the id, the purpose.
const (
	ticketMACLen  = 32
	ticketHeadLen = ticketMACLen + 8 + 1
)

func (t ticket) encodeTicket(secret [secrets.Size]byte) string {
	raw := make([]byte, ticketMACLen, ticketHeadLen+len(t.credentialID)+len(t.purpose))
	raw = binary.BigEndian.AppendUint64(raw, uint64(t.expires.Unix())) //nolint:gosec // G115: after 1970
	raw = append(raw, byte(len(t.credentialID)))                       //nolint:gosec // G115: an id has 30 characters
	raw = append(raw, t.credentialID...)
	raw = append(raw, t.purpose...)
	copy(raw, secrets.MAC(secret, string(raw[ticketMACLen:])))
	return ticketPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// parseTicket reads a ticket that text made with the secret; ok is false for any
// other. The time it takes does not depend on how much of the HMAC is right.
func parseTicket(secret [secrets.Size]byte, text string) (t ticket, ok bool) {
	encoded, ours := strings.CutPrefix(text, ticketPrefix)
	if !ours || len(text) > maxTicket {
		return t, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) < ticketHeadLen || !hmac.Equal(raw[:ticketMACLen], secrets.MAC(secret, string(raw[ticketMACLen:]))) {
		return t, false
	}
	n := int(raw[ticketHeadLen-1])
	if len(raw) < ticketHeadLen+n {
		return t, false
	}
	t.expires = time.Unix(int64(binary.BigEndian.Uint64(raw[ticketMACLen:])), 0) //nolint:gosec // G115: we wrote it
	t.credentialID, t.purpose = string(raw[ticketHeadLen:ticketHeadLen+n]), raw[ticketHeadLen+n:]
	return t, true
}
