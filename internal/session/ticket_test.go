package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
)

func TestService_RedeemTicket_while_it_and_its_credential_live(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		ends   func(t *testing.T, f *fixture, ctx context.Context)
		redeem bool // whether the ticket still opens streams
		stands bool // whether what it has opened may go on
	}{
		{"nothing happens", func(*testing.T, *fixture, context.Context) {}, true, true},
		{"it expires", func(_ *testing.T, f *fixture, _ context.Context) { f.clock.add(5 * time.Minute) }, false, true},
		{"it was made by a wrong clock", func(_ *testing.T, f *fixture, _ context.Context) { f.clock.add(-31 * time.Second) }, false, true},
		{"it was made by the clock of a standby", func(_ *testing.T, f *fixture, _ context.Context) { f.clock.add(-29 * time.Second) }, true, true},
		{"the session is signed out", func(t *testing.T, f *fixture, ctx context.Context) {
			if err := f.SignOut(ctx, claim.None); err != nil {
				t.Fatal(err)
			}
		}, false, false},
		{"the account is deactivated", func(_ *testing.T, f *fixture, _ context.Context) {
			f.store.SetAccount(f.ada, func(a *session.Account) { a.Active = false })
			f.clock.add(time.Second)
		}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, session.Config{})
			_, ctx := f.signIn(t, "ada")
			ticket, err := f.CreateTicket(ctx, []byte("a purpose"))
			if err != nil {
				t.Fatal(err)
			}
			said, err := f.node(t, session.Config{}).RedeemTicket(t.Context(), ticket.Text)
			if err != nil || string(said.Purpose) != "a purpose" || said.Principal.UserID != f.ada {
				t.Fatalf("RedeemTicket on another node = %+v, %v, want that of ada", said, err)
			}
			said, _ = f.RedeemTicket(t.Context(), ticket.Text)
			tt.ends(t, f, ctx)
			if _, err := f.RedeemTicket(t.Context(), ticket.Text); (err == nil) != tt.redeem || err != nil && !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("RedeemTicket = %v, want success %v", err, tt.redeem)
			}
			if _, err := said.Revalidate(t.Context()); (err == nil) != tt.stands {
				t.Errorf("Standing = %v, want success %v", err, tt.stands)
			}
		})
	}
}

func TestService_RedeemTicket_of_an_API_key_has_its_scopes_and_ends_with_it(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	_, ctx := f.signIn(t, "ada")
	key := f.as(t, f.key(ctx, t))
	ticket, err := f.CreateTicket(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	said, err := f.RedeemTicket(t.Context(), ticket.Text)
	if err != nil || said.Principal.APIKeyID() == "" || len(said.Principal.Credential.Scopes) == 0 {
		t.Fatalf("RedeemTicket = %+v, %v, want the principal of the key", said, err)
	}
	if _, err := f.RevokeAPIKey(ctx, claim.None, said.Principal.APIKeyID()); err != nil {
		t.Fatal(err)
	}
	_, err = f.RedeemTicket(t.Context(), ticket.Text)
	wantCode(t, "RedeemTicket of a key that was revoked", err, fault.Unauthenticated)
}

func TestService_RedeemTicket_refuses_what_it_did_not_make(t *testing.T) {
	t.Parallel()
	f, other := newFixture(t, session.Config{}), newFixture(t, session.Config{})
	_, ctx := f.signIn(t, "ada")
	ticket, err := f.CreateTicket(ctx, []byte("a purpose"))
	if err != nil {
		t.Fatal(err)
	}
	_, foreign := other.signIn(t, "ada")
	alien, err := other.CreateTicket(foreign, []byte("a purpose"))
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"", "bpt_", "bpt_AAAA", alien.Text, ticket.Text + "A", ticket.Text[:len(ticket.Text)-2], strings.Repeat("x", 1<<20)}
	for i := range ticket.Text {
		b := []byte(ticket.Text)
		if b[i]++; i >= len("bpt_") && b[i]-1 == '9' {
			b[i] = 'A'
		}
		texts = append(texts, string(b))
	}
	for _, text := range texts {
		_, err := f.RedeemTicket(t.Context(), text)
		wantCode(t, "RedeemTicket", err, fault.Unauthenticated)
	}
}

func TestService_CreateTicket_needs_a_caller_and_a_purpose_that_fits_a_URL(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	_, ctx := f.signIn(t, "ada")
	_, err := f.CreateTicket(t.Context(), nil)
	wantCode(t, "CreateTicket of an anonymous caller", err, fault.Unauthenticated)
	_, err = f.CreateTicket(ctx, make([]byte, 8<<10))
	wantCode(t, "CreateTicket for 8 KiB", err, fault.BodyTooLarge)
	ticket, err := f.CreateTicket(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.store.Fail(errors.New("connection refused"))
	f.ClearCaches()
	_, err = f.RedeemTicket(t.Context(), ticket.Text)
	wantCode(t, "RedeemTicket without the database", err, fault.Unavailable)
}

func FuzzRedeemTicket(f *testing.F) {
	fix := newFixture(f, session.Config{})
	_, ctx := fix.signIn(f, "ada")
	ticket, err := fix.CreateTicket(ctx, []byte("a purpose"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ticket.Text)
	f.Add("bpt_AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := fix.RedeemTicket(context.Background(), text); (err == nil) != (text == ticket.Text) {
			t.Errorf("RedeemTicket(%q) = %v", text, err)
		}
	})
}
