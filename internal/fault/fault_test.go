package fault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestFrom_classifies(t *testing.T) {
	t.Parallel()
	own := New(VersionConflict, "Changed.")
	tests := []struct {
		name string
		err  error
		kind Kind
		code Code
	}{
		{"our own error, however deeply wrapped", fmt.Errorf("a: %w", errors.Join(errors.New("b"), own)), KindConflict, VersionConflict},
		{"a deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), KindTimeout, Timeout},
		{"a client that went away", context.Canceled, KindTimeout, Cancelled},
		{"anything else as internal", errors.New("pq: password of root is 1234"), KindInternal, Internal},
	}
	for _, tt := range tests {
		f := From(tt.err)
		if f.Kind() != tt.kind || f.Code != tt.code || strings.Contains(f.Message, "1234") {
			t.Errorf("%s: got kind %d, code %s, message %q", tt.name, f.Kind(), f.Code, f.Message)
		}
	}
}

func TestAll_keeps_joined_errors_in_their_order(t *testing.T) {
	t.Parallel()
	a, b := New(BadInput, "a"), New(LegacyIDTaken, "b")
	all := All(fmt.Errorf("create: %w", errors.Join(a, errors.Join(b))))
	if !slices.Equal(all, []*Error{a, b}) {
		t.Errorf("All gave %v, want both errors in their order", all)
	}
	if all := All(errors.New("x")); len(all) != 1 || all[0].Kind() != KindInternal {
		t.Errorf("All of a foreign error gave %v, want one internal error", all)
	}
	if all := All(a.Because(errors.New("x"))); len(all) != 1 || all[0].Code != BadInput {
		t.Errorf("All of an error with a cause gave %v, want the error alone", all)
	}
}

func TestError_copies_when_it_is_refined(t *testing.T) {
	t.Parallel()
	shared := New(UserNotFound, "No.")
	if at := shared.At("userId"); shared.Path != nil || !slices.Equal(at.Path, []string{"userId"}) {
		t.Errorf("At changed the shared error: %v, %v", shared.Path, at.Path)
	}
	if because := shared.Because(errors.New("x")); shared.Err != nil || because.Err == nil {
		t.Errorf("Because changed the shared error: %v, %v", shared.Err, because.Err)
	}
}

func TestReport_logs_faults_of_the_server_and_not_of_callers(t *testing.T) {
	t.Parallel()
	for _, m := range Meanings() {
		var log strings.Builder
		New(m.Code, "Shown.").Because(errors.New("the cause")).Report(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), "path", "a.b")
		operators := m.Kind == KindInternal || m.Kind == KindUnavailable
		if got := strings.Contains(log.String(), "the cause"); got != operators {
			t.Errorf("%s: logged %q, want that it logs the cause to be %v", m.Code, log.String(), operators)
		}
	}
}
