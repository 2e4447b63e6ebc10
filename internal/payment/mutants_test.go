package payment_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutants are guards of the domain, each taken out by replacing a text of a file, which must occur once. The simulation must fail without any of them.
var mutants = []struct {
	guard, file, text, instead string
}{
	{"a call is committed before it is made", "payment.go", "\tif step == StepCharge || step == StepRefund {\n\t\tp.apply(InSend, at)\n\t}\n", ""},
	{"that nothing was sent counts only if nothing was before", "payment.go", "if r.Input == InUnsent && (!within || !p.fresh) {", "if false {"},
	{"an unknown outcome is asked for", "state.go", "pendingUnknown:  StepAsk,", "pendingUnknown:  StepNone,"},
	{"what the deadline leaves unknown is asked for", "state.go", "failedUnknown:   StepAsk,", "failedUnknown:   StepNone,"},
	{"the deadline remembers that the outcome is unknown", "state.go", "InDeadline:       {failedUnknown, EventPaymentFailed},\n\t\tInOrderCancelled: {failedUnknown, EventPaymentFailed},\n\t},\n\tpendingAccepted", "InDeadline:       {failedUnsent, EventPaymentFailed},\n\t\tInOrderCancelled: {failedUnknown, EventPaymentFailed},\n\t},\n\tpendingAccepted"},
	{"a success counts after the deadline", "state.go", "InNeverGot:  {To: failedKnown},\n\t\tInSucceeded: chargeSucceeded,", "InNeverGot:  {To: failedKnown},\n\t\tInSucceeded: {To: failedKnown},"},
	{"a provider that does not know a payment may still get it", "worker.go", "r.Outcome == OutcomeNotFound && at.Sub(sentAt(c.Payment)) >= w.cfg.Timing.Quiet", "r.Outcome == OutcomeNotFound"},
	{"a worker that was too slow sends nothing", "worker.go", "if p.NextAt != nil && !w.service.now().Before(*p.NextAt) {", "if false {"},
	{"an order is not cancelled while its payment is under way", "payment.go", "return p.Status == Failed\n", "return true\n"},
	{"the idempotency key is the payment's id", "worker.go", "ChargeRequest{Payment: p.ID,", "ChargeRequest{Payment: p.ID + uid.Payment(rune('a'+p.Claim)),"},
	{"the refund has one id", "payment.go", "return RefundID(\"rfd_\" + strings.TrimPrefix(", "return RefundID(\"rfd_\" + string(rune('a'+p.Claim)) + strings.TrimPrefix("},
	{"a refund without an answer is asked for", "state.go", "refundUnknown:   StepAskRefund,", "refundUnknown:   StepNone,"},
	{"a charge that is declined is not charged", "state.go", "chargeDeclined   = Edge{failedKnown, EventPaymentFailed}", "chargeDeclined   = Edge{succeededKnown, EventPaymentSucceeded}"},
	{"a late success of a cancelled order is refunded", "../order/order.go", "case o.Status == Cancelled && o.RefundRequestedAt == nil:", "case false:"},
}

// TestMutants_are_caught takes one guard out at a time, and expects the simulation to fail.
func TestMutants_are_caught(t *testing.T) { //nolint:tparallel // a build at a time
	t.Parallel()
	if testing.Short() {
		t.Skip("short run: there are no races of ours in other programs")
	}
	for _, m := range mutants { //nolint:paralleltest // a build at a time
		t.Run(m.guard, func(t *testing.T) {
			out, err := runMutant(t, m.file, m.text, m.instead)
			if err == nil {
				t.Errorf("the simulation does not notice that the guard is gone")
			} else if !strings.Contains(out, "TestSimulation_ends_consistently") {
				t.Errorf("the mutant does not build or fails elsewhere: %v\n%s", err, out)
			}
		})
	}
}

// runMutant runs the simulation on a copy of the file with the text replaced.
func runMutant(t *testing.T, file, text, instead string) (out string, err error) {
	t.Helper()
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), text); n != 1 {
		t.Fatalf("%s has the text %d times, want once: %s", file, n, text)
	}
	mutant := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(mutant, []byte(strings.Replace(string(source), text, instead, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "TestSimulation", "-overlay", list, ".")
	cmd.Env = append(os.Environ(), "BACKPLANE_TEST_SOAK=")
	b, err := cmd.CombinedOutput()
	return string(b), err
}
