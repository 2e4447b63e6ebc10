package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// measurement is one measurement, or the medians of several.
type measurement struct {
	PerSecond float64 `json:"requestsPerSecond"`
	P50       float64 `json:"p50Ms"`
	P99       float64 `json:"p99Ms"`
	Server    float64 `json:"serverMicros"`   // processor time of a request
	Database  float64 `json:"databaseMicros"` // in PostgreSQL
	MiB       float64 `json:"memoryMiB"`
}

// results are the measurements of a run, by workload and target.
type results struct {
	Date      string  `json:"date"`
	Machine   string  `json:"machine"`
	Users     int     `json:"users"`
	Orders    int     `json:"orders"`
	Rounds    int     `json:"rounds"`
	Conns     int     `json:"connections"`
	Workloads []*cell `json:"workloads"`
}

// cell has the measurements of a workload on a target.
type cell struct {
	Workload string      `json:"workload"`
	Target   string      `json:"target"`
	Median   measurement `json:"median"`
	Ratio    float64     `json:"serverRatio"` // of processor time to the hand-written handler's, the median of the rounds' ratios; 0 for none
	rounds   []measurement
}

func newResults(o options) *results {
	return &results{
		Date: time.Now().UTC().Format(time.DateOnly), Machine: fmt.Sprintf("%s, %d processors, %s", runtime.GOARCH, runtime.NumCPU(), runtime.Version()),
		Users: o.users, Orders: o.orders, Rounds: o.rounds, Conns: o.connections,
	}
}

func (r *results) add(workload, target string, m measurement) {
	c := r.find(workload, target)
	if c == nil {
		c = &cell{Workload: workload, Target: target}
		r.Workloads = append(r.Workloads, c)
	}
	c.rounds = append(c.rounds, m)
	c.Median = measurement{
		PerSecond: median(c.rounds, func(m measurement) float64 { return m.PerSecond }),
		P50:       median(c.rounds, func(m measurement) float64 { return m.P50 }),
		P99:       median(c.rounds, func(m measurement) float64 { return m.P99 }),
		Server:    median(c.rounds, func(m measurement) float64 { return m.Server }),
		Database:  median(c.rounds, func(m measurement) float64 { return m.Database }),
		MiB:       median(c.rounds, func(m measurement) float64 { return m.MiB }),
	}
	c.Ratio = 0
	if base := r.find(workload, "handwritten"); base != nil {
		var ratios []float64
		for i := range min(len(c.rounds), len(base.rounds)) {
			ratios = append(ratios, c.rounds[i].Server/base.rounds[i].Server)
		}
		c.Ratio = median(ratios, func(r float64) float64 { return r })
	}
}

func (r *results) find(workload, target string) *cell {
	i := slices.IndexFunc(r.Workloads, func(c *cell) bool { return c.Workload == workload && c.Target == target })
	if i < 0 {
		return nil
	}
	return r.Workloads[i]
}

func median[T any](all []T, of func(T) float64) float64 {
	if len(all) == 0 {
		return 0
	}
	var sorted []float64
	for _, v := range all {
		sorted = append(sorted, of(v))
	}
	slices.Sort(sorted)
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func (r *results) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s, %s; %d users, %d orders of 3 lines; %d connections; medians of %d rounds.\nµs are of processor time a request; the ratio is that of the server to the hand-written handler.\n\n",
		r.Date, r.Machine, r.Users, r.Orders, r.Conns, r.Rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\ttarget\trequests/s\tp50 ms\tp99 ms\tserver µs\tdatabase µs\tMiB\tratio\t")
	for _, c := range r.Workloads {
		m := c.Median
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.2f\t%.2f\t%.1f\t%.1f\t%.0f\t%.2f\t\n", c.Workload, c.Target, m.PerSecond, m.P50, m.P99, m.Server, m.Database, m.MiB, c.Ratio)
	}
	_ = w.Flush() // to a terminal or a file: no reader is left
}

// printComparison prints how the results differ from earlier ones; before may be nil.
func (r *results) printComparison(out io.Writer, before *results) {
	if before == nil {
		return
	}
	fmt.Fprintf(out, "\nBefore (%s, %s) to now. Ratios hold between machines, µs do not.\n\n", before.Date, before.Machine)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "workload\ttarget\tserver µs\tdatabase µs\tratio\t")
	for _, c := range r.Workloads {
		if b := before.find(c.Workload, c.Target); b != nil {
			fmt.Fprintf(w, "%s\t%s\t%.1f → %.1f\t%.1f → %.1f\t%.2f → %.2f\t\n", c.Workload, c.Target, b.Median.Server, c.Median.Server, b.Median.Database, c.Median.Database, b.Ratio, c.Ratio)
		}
	}
	_ = w.Flush()
}

func (r *results) write(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

func readResults(path string) (*results, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}
