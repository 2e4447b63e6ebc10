package session

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// ticketTTL is how long a ticket opens streams: as long as an access token, since
// who finds one in a log or a history can do as much with it.
const ticketTTL = 5 * time.Minute

// maxTicket bounds the text of a ticket, in bytes. It travels in a URL, of which
// many proxies take no more than 8 KiB.
const maxTicket = 6 << 10

// ticketPrefix is how tickets begin, so that they are found where they should
// not be.
const ticketPrefix = "bpt_"

// Ticket lets whoever shows it have one thing done in the name of the session or
// API key that it was made with. It is not stored: its text holds all of it,
// under a code that only this installation can compute.
type Ticket struct {
	Text      string
	ExpiresAt time.Time
}

// Redeemed is what a ticket says.
type Redeemed struct {
	Principal *auth.Principal
	Purpose   []byte // as it was given to CreateTicket
	// Standing tells whether what the ticket has opened may go on: it asks for the
	// session or key, not for the ticket, which may have expired.
	Standing func(ctx context.Context) (*auth.Principal, error)
}

// CreateTicket returns a ticket of the caller for a purpose, which anybody who
// has the ticket can read. It needs a session or an API key; a purpose that is
// too long for a URL is BODY_TOO_LARGE.
func (s *Service) CreateTicket(ctx context.Context, purpose []byte) (*Ticket, error) {
	caller := auth.From(ctx)
	if caller == nil {
		return nil, auth.SignInFirst(ctx)
	}
	until := s.now().Add(ticketTTL).Truncate(time.Second)
	t := ticket{caller.Credential.ID, until, purpose}
	text := t.text(s.ticket)
	if len(text) > maxTicket {
		return nil, fault.New(fault.Invalid, fault.BodyTooLarge,
			"Document and variables are too long for a ticket, which stands in a URL. Ask for the stream by POST.").At("query")
	}
	return &Ticket{text, until}, nil
}

// RedeemTicket returns what a ticket says, any number of times until it expires
// or its session or key ends. The error is UNAUTHENTICATED for everything that
// is wrong with it, and UNAVAILABLE if that cannot be told without the database.
func (s *Service) RedeemTicket(ctx context.Context, text string) (*Redeemed, error) {
	t, ok := parseTicket(s.ticket, text)
	if !ok || !s.now().Before(t.until) {
		return nil, fault.New(fault.Unauthenticated, fault.Unauthorized, "The ticket is not valid; make a new one.")
	}
	standing := func(ctx context.Context) (*auth.Principal, error) { return s.standingOf(ctx, t.holder) }
	p, err := standing(ctx)
	if err != nil {
		return nil, err
	}
	return &Redeemed{p, t.purpose, standing}, nil
}

// standingOf returns the principal of a session or API key, by the rules of
// Authenticate.
func (s *Service) standingOf(ctx context.Context, holder string) (*auth.Principal, error) {
	return judged(ctx, func() (*auth.Principal, error) {
		if id := uid.APIKey(holder); id.Valid() {
			return s.liveKey(ctx, id, func(*standing) bool { return true })
		}
		return s.liveSession(ctx, uid.Session(holder), func(*standing) bool { return true })
	})
}

// ticket is what the text of a ticket says.
type ticket struct {
	holder  string // id of a session or API key
	until   time.Time
	purpose []byte
}

// The parts of a ticket: the code, when it expires in Unix seconds, the length of
// the holder's id in one byte, the id, the purpose.
const (
	ticketCodeLen = 32
	ticketHead    = ticketCodeLen + 8 + 1
)

func (t ticket) text(secret [32]byte) string {
	raw := make([]byte, ticketCodeLen, ticketHead+len(t.holder)+len(t.purpose))
	raw = binary.BigEndian.AppendUint64(raw, uint64(t.until.Unix())) //nolint:gosec // G115: after 1970
	raw = append(raw, byte(len(t.holder)))                           //nolint:gosec // G115: an id has 30 characters
	raw = append(raw, t.holder...)
	raw = append(raw, t.purpose...)
	copy(raw, mac(secret, string(raw[ticketCodeLen:])))
	return ticketPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// parseTicket reads a ticket that text made with the secret; ok is false for any
// other. How long it takes says nothing about the code.
func parseTicket(secret [32]byte, text string) (t ticket, ok bool) {
	encoded, ours := strings.CutPrefix(text, ticketPrefix)
	if !ours || len(text) > maxTicket {
		return t, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) < ticketHead || !hmac.Equal(raw[:ticketCodeLen], mac(secret, string(raw[ticketCodeLen:]))) {
		return t, false
	}
	n := int(raw[ticketHead-1])
	if len(raw) < ticketHead+n {
		return t, false
	}
	t.until = time.Unix(int64(binary.BigEndian.Uint64(raw[ticketCodeLen:])), 0) //nolint:gosec // G115: we wrote it
	t.holder, t.purpose = string(raw[ticketHead:ticketHead+n]), raw[ticketHead+n:]
	return t, true
}
