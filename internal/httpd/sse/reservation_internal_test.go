package sse

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

func TestReservation_is_not_counted_again_after_it_closed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		x, err := executor.New(executortest.New(nil, nil, nil), executor.Config{}, log)
		if err != nil {
			t.Fatal(err)
		}
		m, err := connection.New(connection.Config{PerPrincipal: 1}, x, connection.Deps{
			Authenticate: func(context.Context, string) (connection.Caller, error) { return connection.Caller{}, nil },
			AcquireSlot:  func(context.Context) (func(), error) { return func() {}, nil },
		}, log)
		if err != nil {
			t.Fatal(err)
		}
		s, caller := New(m), connection.Caller{Principal: &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}}
		token, err := s.Reserve(t.Context(), caller)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.findReservation(token, caller)
		if err != nil {
			t.Fatal(err)
		}
		v.Close(connection.ReasonInitTimeout) // while a request that has found it goes on
		synctest.Wait()
		if reason := m.RenewCredential(v.ctx, v, &v.cred, caller); reason == nil || !fault.Is(reason.Fault, fault.NotFound) {
			t.Errorf("RenewCredential = %v, want that the reservation is not found", reason)
		}
		if _, err := s.Reserve(t.Context(), caller); err != nil {
			t.Errorf("another reservation: %v, want that the first does not count", err)
		}
		m.Close()
		if err := m.Drain(t.Context(), 0); err != nil {
			t.Errorf("Drain = %v, want that no connection is left", err)
		}
	})
}
