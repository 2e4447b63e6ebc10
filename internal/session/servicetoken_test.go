package session_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
)

func TestServiceToken_names_the_user_to_one_service_for_a_minute(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	ada := &auth.Principal{UserID: f.ada, Roles: []auth.Role{auth.Admin}, Credential: auth.SessionCredential("ses_x")}
	token, err := f.ServiceToken(t.Context(), ada, "till")
	must(t, err)
	var claims map[string]any
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	must(t, err)
	must(t, json.Unmarshal(b, &claims))
	if aud, _ := claims["aud"].([]any); len(aud) != 1 || aud[0] != "service:till" || claims["sub"] != string(f.ada) || len(claims) != 5 {
		t.Errorf("claims = %v, want the user and the service, and no more", claims)
	}
	if claims["exp"].(float64)-claims["iat"].(float64) != 60 {
		t.Errorf("claims = %v, want a minute", claims)
	}
	if _, err := f.Authenticate(t.Context(), token); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("Authenticate takes it: %v", err)
	}
	again := func(p *auth.Principal, service string) bool {
		got, err := f.ServiceToken(t.Context(), p, service)
		must(t, err)
		return got == token
	}
	f.clock.add(19 * time.Second)
	if !again(ada, "till") {
		t.Error("within a third of its life another token was made")
	}
	if again(ada, "other") || again(&auth.Principal{UserID: "usr_bob", Credential: auth.SessionCredential("ses_1")}, "till") {
		t.Error("the token was given for another service or another user")
	}
	f.clock.add(time.Second)
	if again(ada, "till") {
		t.Error("a token was given that does not live for long enough")
	}
}

func TestServiceToken_carries_the_scopes_of_an_API_key(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	scopeOf := func(p *auth.Principal) (scope any, there bool) {
		t.Helper()
		token, err := f.ServiceToken(t.Context(), p, "till")
		must(t, err)
		var claims map[string]any
		b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		must(t, err)
		must(t, json.Unmarshal(b, &claims))
		scope, there = claims["scope"]
		return scope, there
	}
	caller := func(c auth.Credential, roles ...auth.Role) *auth.Principal {
		return &auth.Principal{UserID: f.ada, Roles: roles, Credential: c}
	}
	for name, tt := range map[string]struct {
		caller *auth.Principal
		want   any // nil for no claim
	}{
		"a session":                  {caller(auth.SessionCredential("ses_1"), auth.Customer), nil},
		"a key":                      {caller(auth.APIKeyCredential("key_1", auth.ServicesRead, auth.OrdersRead), auth.Customer), "orders:read services:read"},
		"another key":                {caller(auth.APIKeyCredential("key_2", auth.ServicesRead), auth.Customer), "services:read"},
		"a key beyond its owner":     {caller(auth.APIKeyCredential("key_3", auth.UsersAdmin, auth.ServicesRead), auth.Customer), "services:read"},
		"a key without any":          {caller(auth.APIKeyCredential("key_4", auth.UsersAdmin), auth.Customer), ""},
		"a key of a service of ours": {caller(auth.APIKeyCredential("key_5", auth.ServiceScope("till")), auth.Service), "service:till"},
	} {
		scope, there := scopeOf(tt.caller)
		if there != (tt.want != nil) || scope != tt.want {
			t.Errorf("%s: scope = %v, want %v", name, scope, tt.want)
		}
	}
}
