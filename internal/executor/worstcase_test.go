package executor_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/executor"
)

// families are the ways we know of to make a document expensive. Each takes a
// size; the search below finds the size that costs most.
var families = map[string]func(n int) string{
	"equal fields":        func(n int) string { return "{query{" + repeat(n, "hello ") + "}}" },
	"unknown fields":      func(n int) string { return "{query{" + each(n, "helo%d ") + "}}" },
	"unknown long fields": func(n int) string { return "{query{" + each(n, strings.Repeat("h", 180)+"%d ") + "}}" },
	"unknown fields of an interface": func(n int) string {
		return `{node(id:"1"){` + each(n, "nam%d ") + "}}"
	},
	"unknown types": func(n int) string { return "{query{hello " + each(n, "... on Usre%d {id} ") + "}}" },
	"unknown fragment types": func(n int) string {
		return "{hello " + each(n, "...F%d ") + "}" + each(n, " fragment F%d on Usre {id}")
	},
	"unknown arguments":    func(n int) string { return "{hello(" + each(n, "a%d:1 ") + ")}" },
	"equal arguments":      func(n int) string { return "{hello(" + repeat(n, "a:1 ") + ")}" },
	"unknown directives":   func(n int) string { return "{query{hello " + each(n, "@d%d ") + "}}" },
	"equal directives":     func(n int) string { return "{query{hello " + repeat(n, "@skip(if:false) ") + "}}" },
	"directives on fields": func(n int) string { return "{query{" + repeat(n, "hello @skip(if:false) ") + "}}" },
	"aliases":              func(n int) string { return "{query{" + each(n, "a%d:hello ") + "}}" },
	"conflicting aliases":  func(n int) string { return "{query{" + each(n, "a:echo(number:%d) ") + "}}" },
	"fields with equal objects": func(n int) string {
		return "{query{" + repeat(n, "echo(filter:{name:\"a\" age:1 limit:2 ids:[1,2]}) ") + "}}"
	},
	"nested users":            func(n int) string { return nest(n, `user(id:"1"){`, "id", "self{... on User{") },
	"nested fields":           func(n int) string { return "{thing{... on User{" + repeat(n, "self{") + "id" + repeat(n, "}") + "}}}" },
	"nested inline fragments": func(n int) string { return "{query{" + repeat(n, "...{") + "hello" + repeat(n, "}") + "}}" },
	"flat inline fragments":   func(n int) string { return "{query{" + repeat(n, "...{hello}") + "}}" },
	"typed inline fragments": func(n int) string {
		return `{node(id:"1"){` + repeat(n, "... on User{id name}... on Order{id name}... on Node{id}") + "}}"
	},
	"nested lists":               func(n int) string { return "{echo(list:" + repeat(n, "[") + repeat(n, "]") + ")}" },
	"nested objects":             func(n int) string { return "{echo(filter:" + repeat(n, "{not:") + "{}" + repeat(n, "}") + ")}" },
	"nested lists in wide lists": func(n int) string { return "{echo(filter:{tags:[" + repeat(n, `["a"]`) + "]})}" },
	"wide deep objects": func(n int) string {
		return "{echo(filter:" + repeat(11, "{not:") + "{ids:[" + repeat(n, "1 ") + "]}" + repeat(11, "}") + ")}"
	},
	"wide deep json": func(n int) string {
		return "{echo(any:" + repeat(11, "{not:") + "{ids:[" + repeat(n, "1 ") + "]}" + repeat(11, "}") + ")}"
	},
	"long lists":                   func(n int) string { return "{echo(list:[" + repeat(n, "1 ") + "])}" },
	"long lists of wrong values":   func(n int) string { return "{echo(list:[" + repeat(n, "\"x\" ") + "])}" },
	"long objects":                 func(n int) string { return "{echo(filter:{" + each(n, "f%d:1 ") + "})}" },
	"equal object fields":          func(n int) string { return "{echo(filter:{" + repeat(n, "name:\"a\" ") + "})}" },
	"wrong enum values":            func(n int) string { return "{query{" + each(n, "echo(color:RAD%d) ") + "}}" },
	"long strings":                 func(n int) string { return "{echo(text:\"" + repeat(n*100, "x") + "\")}" },
	"long wrong strings":           func(n int) string { return "{echo(list:[[[[[[[[[[\"" + repeat(n*100, "x") + "\"]]]]]]]]]])}" },
	"long block strings":           func(n int) string { return "{echo(text:\"\"\"" + repeat(n*50, " x\n") + "\"\"\")}" },
	"block strings of empty lines": func(n int) string { return "{echo(text:\"\"\"" + repeat(n*50, "\n") + "\"\"\")}" },
	"block strings of deep lines":  func(n int) string { return "{echo(text:\"\"\"" + repeat(n, repeat(500, " ")+"\n") + "\"\"\")}" },
	"block strings of escapes":     func(n int) string { return "{echo(text:\"\"\"" + repeat(n*20, "\\\"\"\"") + "\"\"\")}" },
	"strings of escapes":           func(n int) string { return "{echo(text:\"" + repeat(n*20, "\\u00e4") + "\")}" },
	"many block strings":           func(n int) string { return "{echo(any:[" + repeat(n, "\"\"\""+repeat(20, " x\n")+"\"\"\" ") + "])}" },
	"comments":                     func(n int) string { return repeat(n, "#\n") + "{hello}" },
	"commas":                       func(n int) string { return "{hello" + repeat(n*100, ",") + "}" },
	"variables": func(n int) string {
		return "query(" + each(n, "$v%d:Int ") + "){echo(list:[" + each(n, "$v%d ") + "])}"
	},
	"unused variables":           func(n int) string { return "query(" + each(n, "$v%d:Int ") + "){hello}" },
	"undefined variables":        func(n int) string { return "{echo(list:[" + each(n, "$v%d ") + "])}" },
	"one variable used often":    func(n int) string { return "query($v:Int){echo(list:[" + repeat(n, "$v ") + "])}" },
	"variables of unknown types": func(n int) string { return "query(" + each(n, "$v%d:Strin%d ") + "){hello}" },
	"operations":                 func(n int) string { return each(n, "query Q%d{hello} ") },
	"equal operations":           func(n int) string { return repeat(n, "query Q{hello} ") },
	"operations with one fragment": func(n int) string {
		return each(50, "query Q%d{query{...F}} ") + "fragment F on Query{" + repeat(n, "hello ") + "}"
	},
	"operations that use variables of one fragment": func(n int) string {
		return each(50, "query Q%d($v:Int){query{...F}} ") + "fragment F on Query{echo(list:[" + repeat(n, "$v ") + "])}"
	},
	"operations that miss variables": func(n int) string {
		return each(50, "query Q%d{query{...F}} ") + "fragment F on Query{echo(list:[" + each(n, "$v%d ") + "])}"
	},
	"fragments in a ring":   func(n int) string { return "{query{...F0}}" + chain(n, "...F%next", n) },
	"fragments in a chain":  func(n int) string { return "{query{...F0}}" + chain(n, "hello ...F%next", -1) },
	"fragments that double": func(n int) string { return "{query{...F0}}" + chain(n, "hello ...F%next ...F%next", -1) },
	"fragments side by side": func(n int) string {
		return "{query{" + each(n, "...F%d ") + "}}" + each(n, " fragment F%d on Query{hello}")
	},
	"one fragment spread often": func(n int) string { return "{query{" + repeat(n, "...F ") + "}} fragment F on Query{hello}" },
	"fat fragment at many places": func(n int) string {
		return "{query{" + each(100, "a%d:user(id:1){...F} ") + "}} fragment F on User{" + repeat(n, "id ") + "}"
	},
	"fragments of one name": func(n int) string { return "{...F}" + repeat(n, " fragment F on Query{hello}") },
	"fragments never used":  func(n int) string { return "{hello}" + each(n, " fragment F%d on Query{hello}") },
	"deep chain of fat fragments": func(n int) string {
		return "{query{...F0}}" + chain(18, "...F%next "+repeat(n/18+1, "hello "), -1)
	},
	"many parents": func(n int) string {
		level := "self{... on User{%[1]s} ... on Order{%[1]s} %[1]s}"
		return `{node(id:"1"){` + deepen(level, "id", n) + "}}"
	},
	"many parents through fragments": func(n int) string {
		return `{node(id:"1"){...F0}}` + chainOn(n, "Node", "self{...F%next} ... on User{self{...F%next}} ... on Order{self{...F%next}}", -1)
	},
	"parents that differ by one leaf": func(n int) string {
		return `{node(id:"1"){...F0}}` + chainOn(n, "Node", "self{...F%next} ... on User{self{id}} ... on Order{self{name}}", -1)
	},
	"introspection": func(n int) string {
		return "{query{" + repeat(n, "__schema{types{name fields{name args{name}}}}") + "}}"
	},
	"introspection in a spiral": func(n int) string {
		return "{__schema{types{...F0}}}" + chainOn(n, "__Type", "ofType{...F%next} fields{name}", -1)
	},
}

func repeat(n int, s string) string { return strings.Repeat(s, n) }

func each(n int, format string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(format, "%d", strconv.Itoa(i)))
	}
	return b.String()
}

func nest(n int, open, leaf, step string) string {
	return "{" + open + repeat(n, step) + leaf + repeat(n, "}}") + "}}"
}

// chain writes n fragments on Query of which each holds the body, with %next
// standing for the number of the next one: 0 after the last in a ring of n.
func chain(n int, body string, ring int) string { return chainOn(n, "Query", body, ring) }

func chainOn(n int, on, body string, ring int) string {
	var b strings.Builder
	for i := range n {
		next := i + 1
		if next == ring {
			next = 0
		}
		fmt.Fprintf(&b, " fragment F%d on %s{%s}", i, on, strings.ReplaceAll(body, "%next", strconv.Itoa(next)))
	}
	if ring < 0 {
		fmt.Fprintf(&b, " fragment F%d on %s{__typename}", n, on)
	}
	return b.String()
}

func deepen(level, leaf string, n int) string {
	s := leaf
	for range n {
		if len(s) > 1<<20 {
			return s
		}
		s = fmt.Sprintf(level, s)
	}
	return s
}

// largest is the longest document that a request of the default body size holds.
const largest = 1 << 20

// BenchmarkWorstCase searches each family for the size that costs most to
// prepare and reports that cost. No document within the default limits, and
// none beyond them, may take 50 ms.
func BenchmarkWorstCase(b *testing.B) {
	for name, family := range families {
		b.Run(name, func(b *testing.B) {
			var worst time.Duration
			var size int
			try := func(n int) bool {
				text := family(n)
				if len(text) > largest {
					return false
				}
				if d := fastest(b, text); d > worst {
					worst, size = d, n
				}
				return true
			}
			for n, fits := 1, true; fits && n <= 1<<20; n = n*5/4 + 1 {
				fits = try(n)
			}
			for n, step := size, size/40+1; n < size*5/4; n += step { // limits lie between the steps
				try(n)
			}
			for b.Loop() { // the search is the measurement
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
			b.ReportMetric(float64(size), "size")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// fastest is the time to prepare the text without a cache: of three tries the
// best, since other work on the machine only ever adds.
func fastest(tb testing.TB, text string) time.Duration {
	tb.Helper()
	best := time.Hour
	for range 3 {
		x := newExecutor(tb, executor.Config{})
		start := time.Now()
		x.Prepare(tb.Context(), executor.Request{Query: text})
		best = min(best, time.Since(start))
	}
	return best
}
