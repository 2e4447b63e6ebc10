package conformance_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestServer_streams_to_the_clients_that_applications_use(t *testing.T) {
	t.Parallel()
	needPackages(t)
	node(t, "streams.mjs", "http://"+serveStreams(t)+"/graphql")
}

func TestServer_lets_EventSource_follow_by_ticket(t *testing.T) {
	t.Parallel()
	needPackages(t)
	server := testenv.Server(t, "BACKPLANE_RATE_LIMIT=off")
	node(t, "tickets.mjs", server.BaseURL+"/graphql")
}

// one is an Authenticator that knows one token.
type one struct{}

func (one) Authenticate(_ context.Context, token string) (*auth.Principal, error) {
	if token != "good" {
		return nil, fault.New(fault.Unauthenticated, "No.")
	}
	return &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}, nil
}

// serveStreams serves a small schema until the test ends and returns its address.
func serveStreams(t *testing.T) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	x, err := executor.New(streamSchema(), executor.Config{}, log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := httpd.New(httpd.Config{}, x, httpd.Deps{Auth: one{}}, log)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	return ln.Addr().String()
}

func streamSchema() *executortest.Schema {
	return executortest.New(executortest.Object{
		"hello": executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
			if p := auth.From(ctx); p != nil {
				return p.UserID, nil
			}
			return "anonymous", nil
		}),
	}, executortest.Object{"touch": "touched"}, executortest.Object{
		"tocks": []any{1, 2},
		"ticks": executortest.Resolver(func(_ context.Context, args map[string]any) (any, error) {
			if n := args["upTo"]; n != nil {
				return []any{executortest.Resolver(func(ctx context.Context, _ map[string]any) (any, error) {
					executor.SetResponseCursor(ctx, fmt.Sprintf("c%v", n))
					return n, nil
				})}, nil
			}
			live := make(chan any, 1) // one event, then nothing for ever
			live <- 1
			return live, nil
		}),
	})
}
