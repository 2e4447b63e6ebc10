package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
)

func TestService_CreateAPIKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	f.user(t, "root", auth.Admin)
	service, idle := f.user(t, "service", auth.Service), f.user(t, "idle")
	f.store.SetAccount(idle, func(a *session.Account) { a.Active = false })
	_, ada := f.signIn(t, "ada")
	_, root := f.signIn(t, "root")
	boss := auth.From(root).UserID
	now := f.clock.now()
	in := func(change func(*session.CreateAPIKeyInput)) session.CreateAPIKeyInput {
		c := session.CreateAPIKeyInput{Name: "key", Scopes: []auth.Scope{auth.OrdersRead}}
		change(&c)
		return c
	}
	same := func(*session.CreateAPIKeyInput) {}
	expires := func(d time.Duration) func(*session.CreateAPIKeyInput) {
		return func(c *session.CreateAPIKeyInput) { at := now.Add(d); c.ExpiresAt = &at }
	}
	scopes := func(s ...auth.Scope) func(*session.CreateAPIKeyInput) {
		return func(c *session.CreateAPIKeyInput) { c.Scopes = s }
	}
	owner := func(id uid.User) func(*session.CreateAPIKeyInput) {
		return func(c *session.CreateAPIKeyInput) { c.UserID = &id }
	}
	tests := []struct {
		name string
		ctx  context.Context
		in   session.CreateAPIKeyInput
		code fault.Code
	}{
		{"one's own", ada, in(same), ""},
		{"by an anonymous caller", t.Context(), in(same), fault.Unauthenticated},
		{"by an API key", f.as(t, f.key(ada, t)), in(same), fault.Forbidden},
		{"one's own, by id", ada, in(owner(f.ada)), ""},
		{"for another, by a customer", ada, in(owner(service)), fault.Forbidden},
		{"for another, by ADMIN", root, in(owner(service)), ""},
		{"for an unknown user", root, in(owner(uid.NewUser(now))), fault.UserNotFound},
		{"for what is no user", root, in(owner("ord_1")), fault.UserNotFound},
		{"for an account that may not act", root, in(owner(idle)), fault.UserNotActive},
		{"no scope", ada, in(scopes()), session.CodeScopeInvalid},
		{"an unknown scope", ada, in(scopes("everything")), session.CodeScopeInvalid},
		{"a scope twice", ada, in(scopes(auth.OrdersRead, auth.OrdersRead)), session.CodeScopeInvalid},
		{"legacy ids, by a customer", ada, in(scopes(auth.LegacyWrite)), fault.Forbidden},
		{"legacy ids, by ADMIN for another", root, in(func(c *session.CreateAPIKeyInput) {
			scopes(auth.LegacyWrite)(c)
			owner(service)(c)
		}), ""},
		{"legacy ids, by ADMIN for a customer", root, in(func(c *session.CreateAPIKeyInput) {
			scopes(auth.LegacyWrite)(c)
			owner(f.ada)(c)
		}), session.CodeScopeInvalid},
		{"the administration of users, by a customer", ada, in(scopes(auth.UsersAdmin)), fault.Forbidden},
		{"the administration of users, by ADMIN", root, in(scopes(auth.UsersWrite, auth.UsersAdmin)), ""},
		{"the administration of users, by ADMIN's key", f.as(t, f.keyOf(t, boss, auth.UsersAdmin)), in(scopes(auth.UsersAdmin)), fault.Forbidden},
		{"the administration of users, by ADMIN for a service", root, in(func(c *session.CreateAPIKeyInput) {
			scopes(auth.UsersAdmin)(c)
			owner(service)(c)
		}), session.CodeScopeInvalid},
		{"no name", ada, in(func(c *session.CreateAPIKeyInput) { c.Name = " " }), fault.BadInput},
		{"an endless name", ada, in(func(c *session.CreateAPIKeyInput) { c.Name = strings.Repeat("x", 101) }), fault.BadInput},
		{"a year", ada, in(expires(366 * 24 * time.Hour)), ""},
		{"more than a year", ada, in(expires(366*24*time.Hour + time.Microsecond)), session.CodeExpiryInvalid},
		{"expired already", ada, in(expires(0)), session.CodeExpiryInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k, text, err := f.CreateAPIKey(tt.ctx, tt.in)
			wantCode(t, "CreateAPIKey", err, tt.code)
			if err != nil {
				return
			}
			if tt.in.ExpiresAt == nil && !k.ExpiresAt.Equal(now.Add(90*24*time.Hour)) {
				t.Errorf("it expires at %s, want 90 days from now", k.ExpiresAt)
			}
			p := auth.From(f.as(t, text))
			if p.UserID != k.UserID || p.APIKeyID() != k.ID || p.SessionID() != "" || !slices.Equal(p.Credential.Scopes, tt.in.Scopes) {
				t.Errorf("the key's principal is %+v, want %+v's with its scopes", p, k)
			}
		})
	}
}

func TestService_CreateAPIKey_records_no_secret(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	_, ctx := f.signIn(t, "ada")
	k, text, err := f.CreateAPIKey(ctx, session.CreateAPIKeyInput{Name: "key", Scopes: []auth.Scope{auth.OrdersRead}})
	must(t, err)
	_, err = f.RevokeAPIKey(ctx, claim.None, k.ID)
	must(t, err)
	evs := f.store.Events()
	if len(evs) != 2 || evs[0].Type != session.EventAPIKeyCreated || evs[1].Type != session.EventAPIKeyRevoked {
		t.Fatalf("events = %+v, want api_key.created and api_key.revoked", evs)
	}
	for i, e := range evs {
		if e.SubjectID != string(k.ID) || e.SubjectVersion != i+1 || !slices.Equal(e.Related, []string{string(f.ada)}) {
			t.Errorf("event = %+v, want version %d of the key, related to ada", e, i+1)
		}
		if secret := text[len("bpk_")+27:]; strings.Contains(string(e.Data), secret) || strings.Contains(strings.ToLower(string(e.Data)), "hash") {
			t.Errorf("the event contains %s", e.Data)
		}
	}
}

func TestService_CreateAPIKey_limit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	_, ctx := f.signIn(t, "ada")
	in := session.CreateAPIKeyInput{Name: "key", Scopes: []auth.Scope{auth.OrdersRead}}
	var last *session.APIKey
	for range 50 {
		var err error
		last, _, err = f.CreateAPIKey(ctx, in)
		must(t, err)
	}
	_, _, err := f.CreateAPIKey(ctx, in)
	wantCode(t, "the 51st", err, fault.LimitReached)
	_, err = f.RevokeAPIKey(ctx, claim.None, last.ID)
	must(t, err)
	_, _, err = f.CreateAPIKey(ctx, in)
	wantCode(t, "one after another was revoked", err, "")
}

func TestService_Authenticate_refuses_invalid_keys(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	_, ctx := f.signIn(t, "ada")
	text := f.key(ctx, t)
	short := f.clock.now().Add(time.Hour)
	_, expiring, err := f.CreateAPIKey(ctx, session.CreateAPIKeyInput{Name: "short", Scopes: []auth.Scope{auth.OrdersRead}, ExpiresAt: &short})
	must(t, err)
	f.as(t, expiring)
	f.clock.add(time.Hour)
	other := f.key(ctx, t)
	tests := []struct{ name, text string }{
		{"one that expired", expiring},
		{"another key's secret", text[:31] + other[31:]},
		{"a key that does not exist", "bpk_" + strings.Repeat("0", 26) + text[30:]},
		{"a cut one", text[:len(text)-1]},
		{"something behind it", text + "x"},
		{"an id in upper case", "bpk_" + strings.ToUpper(text[4:30]) + text[30:]},
		{"the prefix alone", "bpk_"},
		{"another separator", text[:30] + "-" + text[31:]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := f.Authenticate(t.Context(), tt.text)
			wantCode(t, "Authenticate", err, fault.Unauthenticated)
		})
	}
	f.as(t, text)
	f.as(t, other)
}

func TestService_RevokeAPIKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	f.user(t, "bob")
	f.user(t, "root", auth.Admin)
	_, ada := f.signIn(t, "ada")
	_, bob := f.signIn(t, "bob")
	_, root := f.signIn(t, "root")
	text := f.key(ada, t)
	id := auth.From(f.as(t, text)).APIKeyID()

	_, err := f.RevokeAPIKey(t.Context(), claim.None, id)
	wantCode(t, "by an anonymous caller", err, fault.Unauthenticated)
	_, err = f.RevokeAPIKey(f.as(t, text), claim.None, id)
	wantCode(t, "by the key itself", err, fault.Forbidden)
	_, err = f.RevokeAPIKey(bob, claim.None, id)
	wantCode(t, "by another", err, session.CodeAPIKeyNotFound)
	_, err = f.RevokeAPIKey(ada, claim.None, "key_1")
	wantCode(t, "of what is no key", err, session.CodeAPIKeyNotFound)
	_, err = f.RevokeAPIKey(ada, claim.None, uid.NewAPIKey(f.clock.now()))
	wantCode(t, "of a key that does not exist", err, session.CodeAPIKeyNotFound)
	for range 2 {
		k, err := f.RevokeAPIKey(root, claim.None, id)
		must(t, err)
		if k.RevokedAt == nil || k.Version != 2 {
			t.Errorf("the key is %+v, want it revoked once", k)
		}
	}
	_, err = f.Authenticate(t.Context(), text)
	wantCode(t, "Authenticate with it", err, fault.Unauthenticated)
}

func TestAPIKeys_are_visible_to_their_owner_and_ADMIN(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	f.user(t, "staff", auth.Staff)
	f.user(t, "root", auth.Admin)
	tokens, ada := f.signIn(t, "ada")
	_, staff := f.signIn(t, "staff")
	_, root := f.signIn(t, "root")
	key := auth.From(f.as(t, f.key(ada, t))).APIKeyID()
	_, unscoped, err := f.CreateAPIKey(ada, session.CreateAPIKeyInput{Name: "unscoped", Scopes: []auth.Scope{auth.OrdersRead}})
	must(t, err)
	tests := []struct {
		name string
		ctx  context.Context
		keys int
		sees bool
		code fault.Code // of the list
	}{
		{"the owner", ada, 2, true, ""},
		{"ADMIN", root, 2, true, ""},
		{"STAFF", staff, 0, false, ""},
		{"an anonymous caller", t.Context(), 0, false, fault.Unauthenticated},
		{"a key without the scope", f.as(t, unscoped), 0, false, fault.Forbidden},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			list, err := f.APIKeys(tt.ctx, f.ada)
			wantCode(t, "APIKeys", err, tt.code)
			found, err := f.APIKeysByIDs(tt.ctx, []uid.APIKey{key, "key_1", uid.NewAPIKey(f.clock.now())})
			must(t, err)
			if len(list) != tt.keys || (found[key] != nil) != tt.sees || len(found) > 1 {
				t.Errorf("sees %d keys and %v, want %d and %v", len(list), found, tt.keys, tt.sees)
			}
			sessions, err := f.Sessions(tt.ctx, f.ada)
			wantCode(t, "Sessions", err, tt.code)
			byID, err := f.SessionsByIDs(tt.ctx, []uid.Session{tokens.Session.ID, "ses_1"})
			must(t, err)
			if len(sessions) == 1 != tt.sees || (byID[tokens.Session.ID] != nil) != tt.sees {
				t.Errorf("sees %d sessions and %v, want %v", len(sessions), byID, tt.sees)
			}
			for _, x := range sessions {
				if mine := tt.name == "the owner"; x.Current != mine || byID[x.ID].Current != mine {
					t.Errorf("Current = %v, want %v", x.Current, mine)
				}
			}
		})
	}
}

func TestService_IssueAPIKey_needs_no_caller(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	robot := f.user(t, "robot", auth.Service)
	if p := auth.From(f.as(t, f.keyOf(t, robot, auth.LegacyWrite))); p.UserID != robot || !p.MaySetLegacyID() {
		t.Errorf("principal = %+v, want robot with legacy:write", p)
	}
	_, _, err := f.IssueAPIKey(t.Context(), f.ada, session.CreateAPIKeyInput{Name: "cli", Scopes: []auth.Scope{auth.LegacyWrite}})
	wantCode(t, "IssueAPIKey for a customer", err, session.CodeScopeInvalid)
}

func TestAPIKey_narrows_with_the_roles_of_its_owner(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	root := f.user(t, "root", auth.Admin)
	key := f.keyOf(t, root, auth.OrdersRead, auth.LegacyWrite, auth.UsersAdmin, auth.ServiceScope("echo"))
	for _, role := range []auth.Role{auth.Admin, auth.Staff, auth.Admin} {
		f.store.SetAccount(root, func(a *session.Account) { a.Roles = []auth.Role{role} })
		f.clock.add(time.Second) // the age of a state that a request may use
		p, admin := auth.From(f.as(t, key)), role == auth.Admin
		if p.MayAdministerUsers() != admin || p.MaySetLegacyID() != admin || p.MayManageService("echo") != admin || !p.May(auth.OrdersRead) {
			t.Errorf("the key of a %s is %+v, want it to do what its owner may: elevated %v", role, p, admin)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, s := range []string{"", "bpk_", "bpk_" + strings.Repeat("0", 26) + "_" + strings.Repeat("A", 43), "bpk_" + strings.Repeat("8", 26) + "_" + strings.Repeat("_", 43), fmt.Sprintf("%074d", 0)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if text, id, ok := session.ParseKey(s); ok && (text != s || !id.Valid()) {
			t.Errorf("%q reads as %q, id %q", s, text, id)
		}
	})
}
