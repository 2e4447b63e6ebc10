package session_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/session/sessiontest"
	"github.com/backplane-dev/backplane/internal/uid"
)

// duplicates is a store to which each call under a claim is a duplicate.
type duplicates struct{ *sessiontest.Memory }

func (d duplicates) UpdateSession(ctx context.Context, cl claim.Claim, id uid.Session, fn func(*session.Session) error) (*session.Session, error) {
	if cl != claim.None {
		fn = func(*session.Session) error { return nil }
	}
	return d.Memory.UpdateSession(ctx, claim.None, id, fn)
}

func (d duplicates) UpdateKey(ctx context.Context, cl claim.Claim, id uid.APIKey, fn func(*session.APIKey) error) (*session.APIKey, error) {
	if cl != claim.None {
		fn = func(*session.APIKey) error { return nil }
	}
	return d.Memory.UpdateKey(ctx, claim.None, id, fn)
}

func TestService_asks_duplicate_calls_for_permission(t *testing.T) {
	t.Parallel()
	f := newFixture(t, session.Config{})
	_, ada := f.signIn(t, "ada")
	k, _, err := f.CreateAPIKey(ada, session.CreateAPIKeyInput{Name: "key", Scopes: []auth.Scope{auth.OrdersRead}})
	must(t, err)
	s, err := session.NewService(duplicates{f.store}, f.sealer, f.clock.now, slog.New(slog.DiscardHandler), session.Cheap(session.Config{}))
	must(t, err)
	f.user(t, "bob", auth.Staff)
	f.user(t, "root", auth.Admin)
	_, bob := f.signIn(t, "bob")
	_, root := f.signIn(t, "root")
	for name, tt := range map[string]struct {
		ctx  context.Context
		sees bool
	}{"its owner": {ada, true}, "ADMIN": {root, true}, "a former ADMIN": {bob, false}} {
		x, err := s.Revoke(tt.ctx, claim.Call{Key: "k"}, auth.From(ada).SessionID())
		if (x != nil) != tt.sees || !tt.sees && !fault.Is(err, session.CodeSessionNotFound) {
			t.Errorf("a duplicate of Revoke by %s gives %v, %v", name, x, err)
		}
		key, err := s.RevokeAPIKey(tt.ctx, claim.Call{Key: "k"}, k.ID)
		if (key != nil) != tt.sees || !tt.sees && !fault.Is(err, session.CodeAPIKeyNotFound) {
			t.Errorf("a duplicate of RevokeAPIKey by %s gives %v, %v", name, key, err)
		}
	}
}
