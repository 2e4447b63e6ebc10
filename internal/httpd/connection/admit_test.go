package connection

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
)

func TestServer_doesNotCountWhatHasLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		x, err := executor.New(executortest.New(nil, nil, nil), executor.Config{}, log)
		if err != nil {
			t.Fatal(err)
		}
		s, err := New(Config{}, x, Deps{
			Authenticate: func(context.Context, string) (Caller, error) { return Caller{}, nil },
			AcquireSlot:  func(context.Context) (func(), error) { return func() {}, nil },
		}, log)
		if err != nil {
			t.Fatal(err)
		}
		who := Caller{Principal: &auth.Principal{UserID: "usr_1", Credential: auth.SessionCredential("ses_1")}}
		token, err := s.Reserve(t.Context(), who)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.reserved(token, Caller{})
		if err != nil {
			t.Fatal(err)
		}
		v.end(endNoInit) // while a request that has found it goes on
		synctest.Wait()
		if why := s.adopt(v.ctx, v, &v.cred, who); why == nil || why.fault.Kind != fault.NotFound {
			t.Errorf("adopt = %v, want that it is not found", why)
		}
		if len(s.live) > 0 || len(s.owners) > 0 {
			t.Errorf("live = %v, owners = %v, want nobody", s.live, s.owners)
		}
	})
}
