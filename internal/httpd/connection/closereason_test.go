package connection

import (
	"cmp"
	"testing"
	"unicode/utf8"

	_ "github.com/backplane-dev/backplane/graph" // declares all codes
	"github.com/backplane-dev/backplane/internal/fault"
)

func checkReason(t *testing.T, reason *CloseReason, code int) {
	t.Helper()
	if reason.Code != code || reason.Text == "" || len(reason.Text) > MaxReasonBytes || !utf8.ValidString(reason.Text) {
		t.Errorf("close reason = %d %q, want %d and a text that fits a close frame", reason.Code, reason.Text, code)
	}
}

func TestCloseReasons_fit_a_close_frame(t *testing.T) {
	t.Parallel()
	for _, reason := range []*CloseReason{
		ReasonStopping, ReasonDead, ReasonInternal, ReasonInitTimeout,
		reasonExpired, reasonRevoked, reasonOtherUser, reasonUncheckable,
	} {
		checkReason(t, reason, reason.Code)
	}
}

func TestReasonForError_knows_every_kind(t *testing.T) {
	t.Parallel()
	want := map[fault.Kind]int{fault.KindInternal: 4500, fault.KindExhausted: 1013, fault.KindUnavailable: 1013, fault.KindTimeout: 1013}
	for _, m := range fault.Meanings() {
		checkReason(t, ReasonForError(fault.New(m.Code, "No.")), cmp.Or(want[m.Kind], 4403))
	}
	checkReason(t, ReasonForError((&Manager{}).errPrincipalCap()), 1013)
}
