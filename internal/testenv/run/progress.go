package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
)

// progress turns the output of go test -json into a line for each package as soon as it has finished, and what failing
// tests wrote. go test itself shows packages in the order of their names, and nothing while the first is slow.
type progress struct {
	out     io.Writer
	rest    []byte                              // of a line whose end has not been written yet
	written map[string]map[string]*bytes.Buffer // what tests wrote, by package and test; "" is the package
	done    int
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, written: map[string]map[string]*bytes.Buffer{}}
}

// testEvent is an event of go test -json, see go doc test2json.
type testEvent struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// Write implements io.Writer.
func (p *progress) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, found := bytes.Cut(p.rest, []byte("\n"))
		if !found {
			return len(b), nil
		}
		p.rest = rest
		var e testEvent
		if json.Unmarshal(line, &e) != nil || e.Action == "" {
			fmt.Fprintf(p.out, "%s\n", line)
			continue
		}
		p.handle(e)
	}
}

func (p *progress) handle(e testEvent) {
	switch {
	case e.Action == "build-output":
		fmt.Fprint(p.out, e.Output)
	case e.Action == "output":
		if p.written[e.Package] == nil {
			p.written[e.Package] = map[string]*bytes.Buffer{}
		}
		if p.written[e.Package][e.Test] == nil {
			p.written[e.Package][e.Test] = new(bytes.Buffer)
		}
		p.written[e.Package][e.Test].WriteString(e.Output)
	case e.Test != "" && (e.Action == "pass" || e.Action == "skip"):
		delete(p.written[e.Package], e.Test)
	case e.Test == "" && (e.Action == "pass" || e.Action == "skip" || e.Action == "fail"):
		p.finish(e)
	}
}

// finish prints the line of a package, after what its failing tests wrote.
func (p *progress) finish(e testEvent) {
	tests := p.written[e.Package]
	delete(p.written, e.Package)
	if e.Action == "skip" { // it has no tests
		return
	}
	p.done++
	if e.Action == "fail" {
		for _, test := range slices.Sorted(maps.Keys(tests)) {
			_, _ = p.out.Write(tests[test].Bytes())
		}
		fmt.Fprintf(p.out, "%4d  FAIL  %s  %.1fs\n", p.done, e.Package, e.Elapsed)
		return
	}
	note := ""
	if text := tests[""]; text != nil && bytes.Contains(text.Bytes(), []byte("(cached)")) {
		note = "  (cached)"
	}
	fmt.Fprintf(p.out, "%4d  ok    %s  %.1fs%s\n", p.done, e.Package, e.Elapsed, note)
}
