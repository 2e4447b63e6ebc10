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
