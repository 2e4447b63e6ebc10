package main

import (
	"strings"
	"testing"
)

func TestProgress_shows_packages_as_they_finish(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := newProgress(&out)
	for _, tt := range []struct{ line, want string }{
		{`{"Action":"start","Package":"a"}`, ""},
		{`{"Action":"output","Package":"a","Test":"TestX","Output":"=== RUN TestX\n"}`, ""},
		{`{"Action":"output","Package":"b","Test":"TestY","Output":"y is wrong\n"}`, ""},
		{`{"Action":"pass","Package":"a","Test":"TestX","Elapsed":1}`, ""},
		{`{"Action":"output","Package":"a","Output":"ok a (cached)\n"}`, ""},
		{`{"Action":"fail","Package":"b","Test":"TestY","Elapsed":1}`, ""},
		{`{"Action":"fail","Package":"b","Elapsed":2.5}`, "y is wrong\n   1  FAIL  b  2.5s\n"},
		{`{"Action":"pass","Package":"a","Elapsed":1}`, "   2  ok    a  1.0s  (cached)\n"},
		{`{"ImportPath":"c","Action":"build-output","Output":"c.go:1: no\n"}`, "c.go:1: no\n"},
		{`not of a test`, "not of a test\n"},
	} {
		out.Reset()
		for _, part := range []string{tt.line[:3], tt.line[3:], "\n"} { // lines arrive in pieces
			if _, err := p.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != tt.want {
			t.Errorf("%s gave %q, want %q", tt.line, out.String(), tt.want)
		}
	}
}
