package chaos

import (
	"fmt"
	"slices"
	"testing"
)

// delivery is an event as a reader of the log receives it.
type delivery struct {
	position int64
	id       string
}

// maxFaults is how many faults of one kind are reported.
const maxFaults = 3

// compareDeliveries compares what a reader received with what it should have: it reports every
// gap, repeat, swap and foreign event, a few of each kind.
func compareDeliveries(got, want []delivery) []string {
	index := make(map[string]int, len(want))
	for i, p := range want {
		index[p.id] = i
	}
	var foreign, repeats, swaps, gaps []string
	seen, last := make([]bool, len(want)), -1
	for _, p := range got {
		i, known := index[p.id]
		switch {
		case !known || want[i].position != p.position:
			foreign = append(foreign, fmt.Sprintf("foreign: %s at %d is not what the log has there", p.id, p.position))
		case seen[i]:
			repeats = append(repeats, fmt.Sprintf("repeat: %d came again", p.position))
		case i < last:
			swaps = append(swaps, fmt.Sprintf("swap: %d came behind %d", p.position, want[last].position))
		}
		if known {
			seen[i], last = true, max(last, i)
		}
	}
	for i, p := range want {
		if !seen[i] {
			gaps = append(gaps, fmt.Sprintf("gap: %d did not come", p.position))
		}
	}
	var all []string
	for _, kind := range [][]string{foreign, repeats, swaps, gaps} {
		if len(kind) > maxFaults {
			kind = append(kind[:maxFaults], fmt.Sprintf("and %d more like it", len(kind)-maxFaults))
		}
		all = append(all, kind...)
	}
	return all
}

func TestFaults_reports_each_kind(t *testing.T) {
	t.Parallel()
	want := []delivery{{2, "a"}, {5, "b"}, {6, "c"}, {9, "d"}}
	for _, tt := range []struct {
		name string
		got  []delivery
		told []string
	}{
		{"nothing of what is as it should be", want, nil},
		{"a gap in the middle", []delivery{{2, "a"}, {6, "c"}, {9, "d"}}, []string{"gap: 5 did not come"}},
		{"a gap at the begin and at the end", want[1:3], []string{"gap: 2 did not come", "gap: 9 did not come"}},
		{"a repeat at once", []delivery{{2, "a"}, {2, "a"}, {5, "b"}, {6, "c"}, {9, "d"}}, []string{"repeat: 2 came again"}},
		{"a repeat later", slices.Concat(want, want[1:2]), []string{"repeat: 5 came again"}},
		{"a swap", []delivery{{2, "a"}, {6, "c"}, {5, "b"}, {9, "d"}}, []string{"swap: 5 came behind 6"}},
		{"an event of another log", slices.Concat(want[:2], []delivery{{7, "x"}}, want[2:]), []string{"foreign: x at 7 is not what the log has there"}},
		{"an event at another position", []delivery{{2, "a"}, {5, "b"}, {6, "c"}, {8, "d"}}, []string{"foreign: d at 8 is not what the log has there"}},
		{"all of it missing", nil, []string{"gap: 2 did not come", "gap: 5 did not come", "gap: 6 did not come", "and 1 more like it"}},
	} {
		if told := compareDeliveries(tt.got, want); !slices.Equal(told, tt.told) {
			t.Errorf("%s: told %q, want %q", tt.name, told, tt.told)
		}
	}
}

func TestAudit_reports_gaps_and_disorder(t *testing.T) {
	t.Parallel()
	at := func(position, seq int64, subject string, version int) entry {
		return entry{delivery: delivery{position, fmt.Sprint("e", position)}, seq: seq, subject: subject, version: version}
	}
	for _, tt := range []struct {
		name string
		log  []entry
		told int
	}{
		{"nothing of what is as it should be", []entry{at(1, 2, "a", 1), at(2, 1, "b", 1), at(3, 4, "a", 2)}, 0},
		{"a gap", []entry{at(1, 1, "a", 1), at(3, 2, "a", 2)}, 1},
		{"a position that was given twice", []entry{at(1, 1, "a", 1), at(1, 2, "a", 2)}, 1},
		{"a version ahead of the one before it", []entry{at(1, 1, "a", 2), at(2, 2, "a", 1)}, 1},
		{"an identity ahead of the one before it", []entry{at(1, 2, "a", 1), at(2, 1, "a", 2)}, 1},
	} {
		if told := auditLog(tt.log); len(told) != tt.told {
			t.Errorf("%s: told %q, want %d faults", tt.name, told, tt.told)
		}
	}
}

func TestBook_reports_events_missing_from_the_log(t *testing.T) {
	t.Parallel()
	log := []entry{
		{delivery: delivery{1, "a"}, kind: "product.updated", subject: "p"}, {delivery: delivery{2, "b"}, kind: "product.updated", subject: "q"},
		{delivery: delivery{3, "c"}, kind: "order.placed", subject: "o"},
	}
	first, second, placed := change{id: "a"}, change{id: "b"}, change{kind: "order.placed", subject: "o"}
	for _, tt := range []struct {
		name   string
		acts   []change
		undone string
		told   int
	}{
		{"nothing if all is there", []change{first, second, placed}, "", 0},
		{"a write that is lost", []change{first, {id: "x"}, {kind: "order.placed", subject: "y"}}, "", 2},
		{"a write that has come too early", []change{first, placed, second}, "", 1},
		{"a write that was undone", []change{first}, "b", 1},
	} {
		b := newLedger()
		b.record(0, tt.acts...)
		b.undone[tt.undone] = true
		if told := b.faults(log); len(told) != tt.told {
			t.Errorf("%s: told %q, want %d faults", tt.name, told, tt.told)
		}
	}
}
