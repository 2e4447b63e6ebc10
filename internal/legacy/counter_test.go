package legacy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/page"
)

// memory is a Store that keeps what it is given, unless it is down.
type memory struct {
	calls map[string]int64
	down  bool
}

func (m *memory) Add(_ context.Context, usage []legacy.Usage, _ legacy.Bounds) error {
	if m.down {
		return errors.New("down")
	}
	for _, u := range usage {
		m.calls[u.Route+", "+u.Client] += u.Calls
	}
	return nil
}

func (m *memory) List(context.Context, page.Args) (page.Page[*legacy.Usage], error) {
	return page.Page[*legacy.Usage]{}, nil
}

func (m *memory) Count(context.Context) (int, error) { return len(m.calls), nil }

func by(agent string) context.Context {
	return auth.WithClient(context.Background(), auth.Client{UserAgent: agent})
}

// count runs a counter while the test uses it.
func count(t *testing.T, m *memory, cfg legacy.CounterConfig, use func(*legacy.Counter)) {
	t.Helper()
	c, err := legacy.NewCounter(m, time.Now, slog.New(slog.DiscardHandler), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	use(c)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestCounter_counts_by_route_and_client(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{calls: map[string]int64{}}
		count(t, m, legacy.CounterConfig{}, func(c *legacy.Counter) {
			c.CountCall(by("curl/8"), "GET /users")
			c.CountCall(by("curl/8"), "GET /users")
			time.Sleep(6 * time.Second) // of the bubble: one store later
			c.CountCall(by("curl/8"), "GET /users")
			c.CountCall(by(""), "GET /users")
			c.CountCall(by("a\x00\x1b[31mb\xff"+strings.Repeat("é", 300)), "GET /users")
			key := auth.With(by("curl/8"), &auth.Principal{UserID: "usr_1", Credential: auth.APIKeyCredential("key_1")})
			c.CountCall(key, "POST /users")
		})
		want := map[string]int64{"GET /users, curl/8": 3, "GET /users, (unnamed)": 1, "GET /users, a[31mb": 1, "POST /users, key_1": 1}
		if diff := cmp.Diff(want, m.calls); diff != "" {
			t.Errorf("the calls differ (-want +got):\n%s", diff)
		}
	})
}

func TestCounter_keeps_counts_that_could_not_be_stored(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{calls: map[string]int64{}, down: true}
		count(t, m, legacy.CounterConfig{}, func(c *legacy.Counter) {
			c.CountCall(by("curl/8"), "GET /users")
			time.Sleep(6 * time.Second) // of the bubble
			synctest.Wait()
			m.down = false
			c.CountCall(by("curl/8"), "GET /users")
		})
		if m.calls["GET /users, curl/8"] != 2 {
			t.Errorf("stored %v, want both calls", m.calls)
		}
	})
}

func TestCounter_is_bounded(t *testing.T) {
	t.Parallel()
	m := &memory{calls: map[string]int64{}}
	count(t, m, legacy.CounterConfig{Pending: 10}, func(c *legacy.Counter) {
		for i := range 100 {
			c.CountCall(by(fmt.Sprint("client ", i)), "GET /users")
		}
	})
	if len(m.calls) != 11 || m.calls["GET /users, "+legacy.Others] != 90 {
		t.Errorf("stored %d clients, %d calls of others; want 11 and 90", len(m.calls), m.calls["GET /users, "+legacy.Others])
	}
}

func TestService_is_for_ADMIN(t *testing.T) {
	t.Parallel()
	s := legacy.NewService(&memory{})
	staff := auth.With(t.Context(), &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Staff}, Credential: auth.SessionCredential("ses_1")})
	if _, err := s.List(staff, page.Args{}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("List for STAFF = %v, want FORBIDDEN", err)
	}
	if _, err := s.Count(t.Context()); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("Count for an anonymous caller = %v, want UNAUTHENTICATED", err)
	}
	root := auth.With(t.Context(), &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Admin}, Credential: auth.SessionCredential("ses_1")})
	if _, err := s.List(root, page.Args{}); err != nil {
		t.Errorf("List for ADMIN = %v, want nil", err)
	}
}
