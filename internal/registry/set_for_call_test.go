package registry

import (
	"context"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

func TestDirectory_ForCall_lets_in_who_may_call(t *testing.T) {
	t.Parallel()
	w := newTestDirectory()
	for name, public := range map[string]bool{"closed": false, "open": true} {
		s, err := NewService(ServiceInput{Name: name}, at)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(ServiceChange{Public: validate.Of(public)}, at); err != nil {
			t.Fatal(err)
		}
		w.ApplyService(s)
	}
	key := func(scopes ...auth.Scope) *auth.Principal {
		return &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Admin}, Credential: auth.APIKeyCredential("key_1", scopes...)}
	}
	customer := &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Customer}, Credential: auth.SessionCredential("ses_1")}
	const in = fault.Code("")
	tests := []struct {
		caller               string
		ctx                  context.Context
		closed, open, absent fault.Code
	}{
		{"an anonymous caller", t.Context(), fault.Unauthenticated, in, fault.Unauthenticated},
		{"a customer", auth.With(t.Context(), customer), in, in, CodeServiceNotFound},
		{"a customer of a while ago", auth.WithLastKnown(t.Context(), customer), in, in, CodeServiceNotFound},
		{"a key for reading services", auth.With(t.Context(), key(auth.ServicesRead)), in, in, CodeServiceNotFound},
		{"a key of another service", auth.With(t.Context(), key(auth.ServiceScope("other"))), in, in, CodeServiceNotFound},
		{"a key for orders, even of ADMIN", auth.With(t.Context(), key(auth.OrdersRead)), fault.Forbidden, in, fault.Forbidden},
	}
	for _, tt := range tests {
		for name, want := range map[string]fault.Code{"closed": tt.closed, "open": tt.open, "absent": tt.absent} {
			set, err := w.SetForCall(tt.ctx, name)
			if got := codeOf(err); got != want || (set != nil) != (want == in) {
				t.Errorf("%s calls the %s service: %v, %q, want %q", tt.caller, name, set, got, want)
			}
		}
	}
}

func codeOf(err error) fault.Code {
	if err == nil {
		return ""
	}
	return fault.From(err).Code
}
