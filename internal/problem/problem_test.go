package problem_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/user"
)

func TestStatus_knows_every_kind(t *testing.T) {
	t.Parallel()
	seen := map[int]fault.Kind{}
	for _, k := range fault.Kinds() {
		code := problem.Status(k)
		if other, twice := seen[code]; twice {
			t.Errorf("kinds %d and %d have the same status %d", other, k, code)
		}
		seen[code] = k
	}
}

func TestStatusOf_follows_from_the_code(t *testing.T) {
	t.Parallel()
	unlike400 := map[fault.Code]int{}
	for status, codes := range map[int][]fault.Code{
		401: {fault.Unauthenticated, fault.TokenExpired},
		403: {fault.Forbidden, fault.IntrospectionDisabled},
		404: {
			fault.NotFound, fault.PersistedQueryNotFound, fault.UserNotFound, session.CodeSessionNotFound, session.CodeAPIKeyNotFound,
			order.CodeProductNotFound, order.CodeOrderNotFound, registry.CodeServiceNotFound, registry.CodeInstanceNotFound, consumer.CodeDeadLetterNotFound,
		},
		409: {
			fault.VersionConflict, fault.LegacyIDTaken, fault.IdempotencyKeyReused, fault.IdempotencyInFlight, fault.UserNotActive,
			user.CodeUsernameTaken, user.CodeEmailTaken, user.CodeLastAdmin, fault.LimitReached, order.CodeProductNotActive, order.CodeSKUTaken,
			order.CodeStockInsufficient, order.CodeOrderNotCancellable, order.CodeOrderNotPayable, order.CodeOrderNotShippable,
			order.CodeOrderNotDeliverable, order.CodeOrderNotRefundable, order.CodePriceChanged, order.CodePaymentUnderWay, registry.CodeStaleIncarnation,
		},
		429: {fault.RateLimited},
		500: {fault.Internal},
		503: {fault.Unavailable, fault.ServerBusy, registry.CodeNoInstance, fault.BadGateway},
		504: {fault.Timeout, fault.Cancelled, fault.GatewayTimeout},
	} {
		for _, c := range codes {
			unlike400[c] = status
		}
	}
	for _, m := range fault.Meanings() {
		want := cmp.Or(unlike400[m.Code], http.StatusBadRequest)
		if got := problem.StatusOf(fmt.Errorf("wrapped: %w", fault.New(m.Code, "No."))); got != want {
			t.Errorf("an error %s has the status %d, want %d", m.Code, got, want)
		}
	}
	if got := problem.StatusOf(problem.New(http.StatusTeapot, fault.New(fault.Internal, "No."))); got != http.StatusTeapot {
		t.Errorf("an error with a status of its own has %d, want %d", got, http.StatusTeapot)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	busy := fault.New(fault.ServerBusy, "Busy.")
	busy.RetryAfter = 1500 * time.Millisecond
	tests := []struct {
		name    string
		err     error
		status  int
		headers map[string]string
		body    string
	}{
		{"writes the code as a phrase", fault.New(fault.UserNotFound, "There is no such user."), 404, nil,
			`{"type":"about:blank","title":"Not Found","status":404,"detail":"There is no such user.","code":"USER_NOT_FOUND","error":"User not found"}`},
		{"hides an internal error", errors.New("secret"), 500, nil,
			`{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"Something went wrong on our side.","code":"INTERNAL","error":"Internal"}`},
		{"says when to retry", busy, 503, map[string]string{"Retry-After": "2"},
			`{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Busy.","code":"SERVER_BUSY","error":"Server busy"}`},
		{"challenges for a token", fault.New(fault.Unauthenticated, "Sign in first."), 401,
			map[string]string{"WWW-Authenticate": `Bearer realm="backplane"`},
			`{"type":"about:blank","title":"Unauthorized","status":401,"detail":"Sign in first.","code":"UNAUTHENTICATED","error":"Unauthenticated"}`},
		{"lists violations and allowed methods", &problem.Error{
			Status: 405, Allow: "GET", Version: 3, Fault: fault.New(fault.BadRequest, "No."),
			Violations: []problem.Violation{{Code: fault.BadInput, Detail: "x is required.", In: "body", Pointer: "/x"}},
		}, 405, map[string]string{"Allow": "GET"},
			`{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"No.","code":"BAD_REQUEST","error":"Bad request","current_version":3,` +
				`"errors":[{"code":"BAD_INPUT","detail":"x is required.","in":"body","pointer":"/x"}]}`},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		problem.Write(w, httptest.NewRequest(http.MethodGet, "/", nil), slog.New(slog.DiscardHandler), tt.err)
		if w.Code != tt.status || w.Header().Get("Content-Type") != problem.MediaType {
			t.Errorf("%s: got status %d as %s, want %d", tt.name, w.Code, w.Header().Get("Content-Type"), tt.status)
		}
		if diff := gocmp.Diff(tt.body, strings.TrimSpace(w.Body.String())); diff != "" || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: the document differs (-want +got):\n%s", tt.name, diff)
		}
		for name, want := range tt.headers {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s = %q, want %q", tt.name, name, got, want)
			}
		}
	}
}

func TestWrite_challenges_by_what_the_client_sent(t *testing.T) {
	t.Parallel()
	const realm = `Bearer realm="backplane"`
	for name, tt := range map[string]struct {
		target, authorization string
		code                  fault.Code
		want                  string
	}{
		"nothing":          {"/orders", "", fault.Unauthenticated, realm},
		"a token":          {"/orders", "Bearer x.y.z", fault.Unauthenticated, realm + `, error="invalid_token"`},
		"an expired token": {"/orders", "Bearer a.b.c", fault.TokenExpired, realm + `, error="invalid_token", error_description="No."`},
		"a ticket":         {"/graphql?ticket=x", "", fault.Unauthenticated, realm + `, error="invalid_token"`},
	} {
		r := httptest.NewRequest(http.MethodGet, tt.target, nil)
		r.Header.Set("Authorization", tt.authorization)
		w := httptest.NewRecorder()
		problem.Write(w, r, slog.New(slog.DiscardHandler), fault.New(tt.code, "No."))
		if got := w.Header().Get("WWW-Authenticate"); got != tt.want {
			t.Errorf("to %s the challenge is %q, want %q", name, got, tt.want)
		}
	}
}
