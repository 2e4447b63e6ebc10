package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// missing is what several tests were left out for.
type missing struct {
	tests    int
	packages map[string]map[string]bool // package to its tests, without their cases
}

// summary says which tests were left out and why, from the notes that
// testenv.LeaveOut has written. It is empty if nothing was.
func summary(notes string) string {
	byReason := map[string]*missing{}
	for line := range strings.Lines(notes) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) == 3 {
			note(byReason, fields[0], fields[1], fields[2])
		}
	}
	if len(byReason) == 0 {
		return ""
	}
	var b strings.Builder
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		m := byReason[reason]
		fmt.Fprintf(&b, "\nLeft out, %d tests and cases: %s\n", m.tests, reason)
		for _, pkg := range slices.Sorted(maps.Keys(m.packages)) {
			fmt.Fprintf(&b, "  %s: %s\n", pkg, strings.Join(slices.Sorted(maps.Keys(m.packages[pkg])), ", "))
		}
	}
	b.WriteString("\nRun make services to install what they need.\n")
	return b.String()
}

func note(byReason map[string]*missing, pkg, test, reason string) {
	m := byReason[reason]
	if m == nil {
		m = &missing{packages: map[string]map[string]bool{}}
		byReason[reason] = m
	}
	if m.packages[pkg] == nil {
		m.packages[pkg] = map[string]bool{}
	}
	name, _, _ := strings.Cut(test, "/")
	m.packages[pkg][name] = true
	m.tests++
}
