package requestlog_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

func TestValidRequestID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"": false, "a": true, "4bf92f35-77b3:0/1+2=": true, "a b": false, "a\n": false, "<a>": false, "ä": false,
		strings.Repeat("a", 64): true, strings.Repeat("a", 65): false, requestlog.NewRequestID(): true,
	} {
		if got := requestlog.ValidRequestID(id); got != want {
			t.Errorf("ValidRequestID(%q) = %t, want %t", id, got, want)
		}
	}
}

func TestHandler_adds_the_request_ID(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(requestlog.Handler(slog.NewTextHandler(&out, nil))).With("a", 1)
	log.InfoContext(requestlog.WithRequestID(t.Context(), "r1"), "with")
	log.InfoContext(t.Context(), "without")
	lines := strings.Split(out.String(), "\n")
	if !strings.Contains(lines[0], "a=1 request_id=r1") || strings.Contains(lines[1], "request_id") {
		t.Errorf("log = %q, want the id in the first line only", lines)
	}
}

func TestCallerFields_names_user_and_credential(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]*auth.Principal{
		"[]":                         nil,
		"[user=usr_1 session=ses_1]": {UserID: "usr_1", Credential: auth.SessionCredential("ses_1")},
		"[user=usr_1 key=key_1]":     {UserID: "usr_1", Credential: auth.APIKeyCredential("key_1")},
	} {
		if got := fmt.Sprint(requestlog.CallerFields(p)); got != want {
			t.Errorf("CallerFields = %s, want %s", got, want)
		}
	}
}
