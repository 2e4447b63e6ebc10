package security_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/security"
)

var at = time.Date(2026, 11, 30, 8, 0, 0, 0, time.UTC)

// requestOf returns the context of a request of the caller.
func requestOf(p *auth.Principal) context.Context {
	ctx := auth.WithClient(requestlog.WithRequestID(context.Background(), "r1"), auth.Client{Address: "192.0.2.1", UserAgent: "a\x00\x1b[31m\u0085b\xff" + strings.Repeat("é", 300)})
	if p == nil {
		return ctx
	}
	return auth.With(ctx, p)
}

func TestEventOf_classifies_errors(t *testing.T) {
	t.Parallel()
	caller := &auth.Principal{UserID: "usr_1", Credential: auth.APIKeyCredential("key_1")}
	common := security.Event{OccurredAt: at, LastAt: at, Count: 1, Address: "192.0.2.1", RequestID: "r1"}
	with := func(change func(*security.Event)) *security.Event {
		e := common
		change(&e)
		return &e
	}
	refused := fault.New(fault.Unauthenticated, "No.")
	tests := []struct {
		name   string
		caller *auth.Principal
		err    error
		want   *security.Event
	}{
		{"a lack of rights", caller, fmt.Errorf("list: %w", fault.New(fault.Forbidden, "No.")), with(func(e *security.Event) {
			e.Type, e.Detail, e.UserID, e.Actor, e.APIKeyID = security.PermissionDenied, "FORBIDDEN", "usr_1", "key_1", "key_1"
		})},
		{"an anonymous caller", nil, refused, with(func(e *security.Event) { e.Type, e.Detail = security.PermissionDenied, "UNAUTHENTICATED" })},
		{"a limit", nil, fault.New(fault.RateLimited, "No."), with(func(e *security.Event) { e.Type = security.RateLimited })},
		{"a refusal, whatever its code", nil, fmt.Errorf("a: %w", &security.Refusal{Type: security.CredentialRefused, Detail: "REVOKED", UserID: "usr_2", SessionID: "ses_2", Err: refused}),
			with(func(e *security.Event) {
				e.Type, e.Detail, e.UserID, e.SessionID = security.CredentialRefused, "REVOKED", "usr_2", "ses_2"
			})},
		{"what is recorded already", nil, security.Recorded(fault.New(fault.RateLimited, "No.")), nil},
		{"a mistake of the caller", caller, fault.New(fault.BadInput, "No."), nil},
		{"an error of the server", caller, errors.New("broken"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, ok := security.EventOf(requestOf(tt.caller), tt.err, at)
			if tt.want == nil {
				if ok {
					t.Errorf("EventOf = %+v, want none", e)
				}
				return
			}
			if diff := cmp.Diff(*tt.want, e, cmpopts.IgnoreFields(security.Event{}, "ID", "UserAgent")); diff != "" || !ok {
				t.Errorf("EventOf differs (-want +got):\n%s", diff)
			}
			if want := "a[31mb" + strings.Repeat("é", 125); e.UserAgent != want {
				t.Errorf("the user agent is %q, want %q", e.UserAgent, want)
			}
		})
	}
}

func TestRefuse_keeps_the_error_for_the_caller(t *testing.T) {
	t.Parallel()
	f := fault.New(fault.Forbidden, "No.")
	for _, err := range []error{security.Refuse(security.HostRefused, "", f), security.Recorded(f)} {
		if fault.From(err) != f || !fault.Is(err, fault.Forbidden) || err.Error() != f.Error() || len(fault.All(err)) != 1 {
			t.Errorf("%v is not the error that it wraps", err)
		}
	}
}

func TestEventTypes_are_changes_then_refusals(t *testing.T) {
	t.Parallel()
	var refusals []security.EventType
	for _, typ := range security.EventTypes() {
		if typ.IsRefusal() {
			refusals = append(refusals, typ)
		} else if len(refusals) > 0 {
			t.Errorf("%s stands behind the refusals %v", typ, refusals)
		}
	}
	if len(refusals) != 8 || slices.Contains(refusals, security.RefreshReused) {
		t.Errorf("the refusals are %v", refusals)
	}
}
