package registry

import (
	"strings"
	"time"
	"unicode"

	"github.com/backplane-dev/backplane/internal/uid"
)

// maxCheckOutput bounds the output of a health check, in characters.
const maxCheckOutput = 200

// CheckReport is the last health check of an instance. It is stored with the lease, which its
// reader may see, and is no event.
type CheckReport struct {
	At     time.Time     // when it ended
	Passed bool          // whether the status was below 400
	Took   time.Duration // until the response began, or the check failed
	Output string        // the status with the start of the body, or why there was none: one line of maxCheckOutput characters at most
}

// newCheckReport returns the report of a probe, whose output the instance may have chosen.
func newCheckReport(at time.Time, passed bool, took time.Duration, output string) CheckReport {
	return CheckReport{At: at, Passed: passed, Took: max(0, took), Output: cleanOutput(output)}
}

// cleanOutput returns the start of the text in one line of printable characters.
func cleanOutput(text string) string {
	var b strings.Builder
	space, n := false, 0
	for _, r := range text {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar {
			space = n > 0
			continue
		}
		width := 1
		if space {
			width = 2
		}
		if n+width >= maxCheckOutput {
			b.WriteRune('…')
			break
		}
		if space {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
		space, n = false, n+width
	}
	return b.String()
}

// Bounds of what is stored of checks.
const (
	maxCheckReports = 6000             // stored in one round; the others wait for the next check of their instance
	sameCheckPause  = 10 * time.Second // after which a report that differs only in its times is stored again
)

// reportsToStore returns the reports of the checks since the last call, at most maxCheckReports.
func (c *checker) reportsToStore() map[InstanceStart]CheckReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	reports := c.reports
	c.reports = map[InstanceStart]CheckReport{}
	return reports
}

// keepReport keeps the report until the next round, if it says something new. The caller holds the lock.
func (c *checker) keepReport(id uid.Instance, st *checkState, r CheckReport) {
	same := st.stored.Passed == r.Passed && st.stored.Output == r.Output
	if same && r.At.Sub(st.stored.At) < sameCheckPause && !r.At.Before(st.stored.At) {
		return
	}
	start := InstanceStart{id, st.incarnation}
	if _, there := c.reports[start]; there || len(c.reports) < maxCheckReports {
		c.reports[start], st.stored = r, r
	}
}

// LatencyMs returns Took in milliseconds.
func (r *CheckReport) LatencyMs() int { return int(r.Took.Milliseconds()) }
