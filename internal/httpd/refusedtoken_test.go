package httpd_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/security"
)

// accessTokens are tokens of which a.b.c is an access token that has expired.
type accessTokens struct{ tokens }

func (accessTokens) IsAccessToken(bearer string) bool { return strings.Count(bearer, ".") == 2 }

func (a accessTokens) Authenticate(ctx context.Context, bearer string) (*auth.Principal, error) {
	if bearer == "a.b.c" {
		return nil, security.Refuse(security.CredentialRefused, "EXPIRED", fault.New(fault.TokenExpired, "The access token has expired."))
	}
	return a.tokens.Authenticate(ctx, bearer)
}

const expiredChallenge = `Bearer realm="backplane", error="invalid_token", error_description="The access token has expired."`

// TestServer_ignores_refused_access_tokens_where_callers_may_be_anonymous, says so, and records it once.
func TestServer_ignores_refused_access_tokens_where_callers_may_be_anonymous(t *testing.T) {
	t.Parallel()
	const upgrade = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	for _, tt := range []struct {
		name, line, headers, token string
		status                     int
		challenge                  string
	}{
		{"an access token that has expired", "GET /graphql?query={hello}", "", "a.b.c", 200, expiredChallenge},
		{"an access token that is not valid", "GET /graphql?query={hello}", "", "x.y.z", 200, `Bearer realm="backplane", error="invalid_token"`},
		{"an operation that has nothing for anonymous callers", "GET /graphql?query={thing{__typename}}", "", "a.b.c", 401, expiredChallenge},
		{"another token", "GET /graphql?query={hello}", "", "bad", 401, `Bearer realm="backplane", error="invalid_token"`},
		{"an access token that cannot be checked", "GET /graphql?query={hello}", "", "down", 503, ""},
		{"a WebSocket", "GET /graphql", upgrade, "a.b.c", 401, expiredChallenge},
		{"an event stream", "GET /graphql?query={hello}", "Accept: text/event-stream", "a.b.c", 401, expiredChallenge},
		{"a reservation of an event stream", "PUT /graphql", "", "a.b.c", 401, expiredChallenge},
		{"the gateway", "GET /gateway/echo/", "", "a.b.c", 401, expiredChallenge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var events []security.Event
			s := newServer(t, httpd.Config{}, httpd.Deps{Auth: accessTokens{}, Gateway: noGateway{}, OnError: func(ctx context.Context, err error) {
				if e, ok := security.EventOf(ctx, err, time.Now()); ok {
					events = append(events, e)
				}
			}})
			w := answer(s, request(tt.line, tt.headers+"\nAuthorization: Bearer "+tt.token, ""))
			if got := w.Header().Get("WWW-Authenticate"); w.Code != tt.status || got != tt.challenge {
				t.Errorf("the answer is %d %q %s, want %d %q", w.Code, got, w.Body, tt.status, tt.challenge)
			}
			if want := tt.token == "a.b.c"; (len(events) == 1 && events[0].Type == security.CredentialRefused && events[0].Detail == "EXPIRED") != want {
				t.Errorf("the security events are %+v", events)
			}
		})
	}
}

// noGateway is a Gateway that nothing may reach.
type noGateway struct{}

func (noGateway) ServeHTTP(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }
func (noGateway) Drain(context.Context) error                      { return nil }
