package payment

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// allStates are every status with everything that may be known.
func allStates() (all []State) {
	for _, s := range Statuses() {
		for _, k := range Knowledges() {
			all = append(all, State{s, k})
		}
	}
	return all
}

// TestEdges_are_the_list states each edge once more, in words, as shop owners read them in docs/payments.md: a change of
// the table changes both.
func TestEdges_are_the_list(t *testing.T) {
	t.Parallel()
	var got []string
	for _, s := range allStates() {
		for _, in := range Inputs() {
			if e, ok := next(s, in); ok {
				line := fmt.Sprintf("%s + %s -> %s", s, in, e.To)
				if e.Event != "" {
					line += " (" + string(e.Event) + ")"
				}
				got = append(got, line)
			}
		}
	}
	text, err := os.ReadFile("testdata/edges.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(text)), "\n")
	if !slices.Equal(got, want) {
		t.Errorf("the edges are\n%s\nwant those of testdata/edges.txt", strings.Join(got, "\n"))
	}
}

func TestEdges_lead_to_states_that_are_in_the_table(t *testing.T) {
	t.Parallel()
	for s, out := range edges {
		for in, e := range out {
			if !slices.Contains(Inputs(), in) {
				t.Errorf("%s takes the input %q, which is not listed", s, in)
			}
			if !e.To.Valid() {
				t.Errorf("%s + %s leads to %s, which is not in the table", s, in, e.To)
			}
			if (s.Status != e.To.Status) != (e.Event != "" && in != InRefundDeadline) && in != InRefundRequested {
				t.Errorf("%s + %s leads to %s with the event %q: a change of the status has an event", s, in, e.To, e.Event)
			}
		}
	}
}

func TestEdges_never_take_money_back_in_silence(t *testing.T) {
	t.Parallel()
	for s := range edges {
		charged := s.Status == Succeeded || s.Status == Refunding || s.Status == Refunded
		if e, ok := next(s, InSucceeded); charged == ok || ok && e.To != succeededKnown {
			t.Errorf("%s + a success leads to %v, %t", s, e.To, ok)
		}
		for _, in := range Inputs() {
			if e, ok := next(s, in); ok && charged && (e.To.Status == Pending || e.To.Status == Failed) {
				t.Errorf("%s + %s leads to %s: the charge is forgotten", s, in, e.To)
			}
		}
		if s.Known == Unknown && steps[s] == "" {
			t.Errorf("no worker settles %s", s)
		}
	}
}
