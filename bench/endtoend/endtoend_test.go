package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

func TestMain(m *testing.M) {
	if os.Getenv(peerEnv) != "" {
		fmt.Fprintln(os.Stderr, servePeer())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestRun runs all of it at a small size: each workload on each kind of target gets right responses, the
// hand-written ones equal to the product's, and the results can be compared.
func TestRun(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts several servers")
	}
	o := defaults()
	o.users, o.orders, o.rounds, o.time, o.connections, o.limit = 120, 200, 1, 50*time.Millisecond, 4, 5*time.Minute
	o.binary, o.targets = testenv.Binary(t), "static,handwritten,planned"
	o.json = filepath.Join(t.TempDir(), "results.json")
	var out bytes.Buffer
	err := run(t.Context(), o, &out)
	if errors.Is(err, local.ErrMissing) {
		testenv.LeaveOut(t, "PostgreSQL", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	r, err := readResults(o.json)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range workloadNames() {
		for target := range strings.SplitSeq(o.targets, ",") {
			if c := r.find(w, target); c == nil || c.Median.PerSecond <= 0 || c.Median.MiB <= 0 || c.Median.P99 < c.Median.P50 {
				t.Errorf("%s of %s = %+v, want figures", w, target, c)
			}
		}
	}
	r.printComparison(&out, r)
	if !strings.Contains(out.String(), "1.00 → 1.00") {
		t.Errorf("printed %s, without the comparison", &out)
	}
}

func TestResults_have_medians_and_ratios_of_rounds(t *testing.T) {
	t.Parallel()
	r := newResults(defaults())
	for i, server := range []float64{10, 20, 60} {
		r.add("w", "handwritten", measurement{Server: server, PerSecond: 1})
		r.add("w", "planned", measurement{Server: server * float64(2+i), PerSecond: server})
	}
	got := r.find("w", "planned")
	if got.Ratio != 3 || got.Median.Server != 60 || got.Median.PerSecond != 20 {
		t.Errorf("medians = %s, want a ratio of 3, 60 µs and 20 requests/s", marshal(got))
	}
	text, err := json.Marshal(r)
	if err != nil || !json.Valid(text) {
		t.Errorf("results as JSON = %s, %v", text, err)
	}
}

func TestNewWorkloads_refuses_an_unknown_name(t *testing.T) {
	t.Parallel()
	s := &setup{sample: &sample{}}
	if _, err := s.newWorkloads("W9"); err == nil || !strings.Contains(err.Error(), "W1 user by id") {
		t.Errorf("newWorkloads = %v, want an error that lists the names", err)
	}
	if some, err := s.newWorkloads("W4,W1"); err != nil || len(some) != 3 {
		t.Errorf("newWorkloads = %d workloads, %v, want those of W4 and W1", len(some), err)
	}
}
