package connection

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
)

func TestConfig_refuses_negative_limits(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{Connections: -1}, {Operations: -1}, {KeepAlive: -1}, {CheckTime: -1}} {
		if _, err := cfg.withDefaults(); err == nil {
			t.Errorf("withDefaults(%+v) gave no error", cfg)
		}
	}
}

// fakeConnection is a connection that only counts.
type fakeConnection struct{ reason *CloseReason }

func (c *fakeConnection) Close(reason *CloseReason)          { c.reason = reason }
func (c *fakeConnection) Recheck(func(*auth.Principal) bool) {}

func newManager(t *testing.T, cfg Config) *Manager {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	x, err := executor.New(executortest.New(nil, nil, nil), executor.Config{}, log)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(cfg, x, Deps{
		Authenticate: func(context.Context, string) (Caller, error) { return Caller{}, nil },
		AcquireSlot:  func(context.Context) (func(), error) { return func() {}, nil },
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestManager_counts_a_connection_until_Release(t *testing.T) {
	t.Parallel()
	m := newManager(t, Config{})
	user := Caller{Principal: &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}}
	c, cred := &fakeConnection{}, &Credential{}
	if err := m.Admit(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	if reason := m.RenewCredential(t.Context(), c, cred, user); reason != nil {
		t.Errorf("RenewCredential = %v, want nil", reason)
	}
	if diff := cmp.Diff(map[string]int{"user usr_1": 1}, m.counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	m.Release(c)
	if reason := m.RenewCredential(t.Context(), c, cred, user); reason == nil || !fault.Is(reason.Fault, fault.NotFound) {
		t.Errorf("RenewCredential after Release = %v, want that the connection is not found", reason)
	}
	if len(m.open) > 0 || len(m.counts) > 0 {
		t.Errorf("open = %v, counts = %v, want none", m.open, m.counts)
	}
}
