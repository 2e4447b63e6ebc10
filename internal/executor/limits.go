package executor

import (
	"cmp"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Limits bounds what one request may ask for. Zero means the default. All but
// Errors, Response and Time hold before a document is validated or run.
type Limits struct {
	Document       int           // bytes of the document's text; default 256 KiB
	Tokens         int           // lexical tokens of the document; default 10,000
	Operations     int           // operations in the document; default 50
	Fields         int           // fields as written in the document; default 3,000
	ExpandedFields int           // fields of all operations, each spread counted as what it spreads; default 15,000
	Fragments      int           // fragment definitions; default 200
	FragmentDepth  int           // fragments that spread fragments, the longest chain; default 20
	Depth          int           // levels of fields of the expanded operation; default 20
	Aliases        int           // fields with an alias; default 100
	RootFields     int           // fields of the operation's root, expanded; default 30
	Directives     int           // directives in the document; default 200
	Complexity     int           // cost of the operation with its variables; default 50,000
	ListSize       int           // items that the cost assumes for a list whose size was not asked for; default 20
	PageSize       int           // items above which the cost counts no further: no resolver gives more; default 100
	Errors         int           // errors in one response; default 50
	Response       int           // bytes of the data of one response; default 16 MiB
	Time           time.Duration // run time of a query or mutation; default 10 s
}

// maxName is the longest name in bytes that a document may use. Names repeat
// in errors and are compared with suggestions, and tokens have no length limit.
const maxName = 200

// maxLiteral is how deep lists and objects may nest in a value, and lists in a
// type. Checking a value reads what it holds again on each level.
const maxLiteral = 12

func (l Limits) withDefaults() (Limits, error) {
	for _, p := range []struct {
		name     string
		value    *int
		fallback int
	}{
		{"document bytes", &l.Document, 256 << 10},
		{"tokens", &l.Tokens, 10_000},
		{"operations", &l.Operations, 50},
		{"fields", &l.Fields, 3_000},
		{"expanded fields", &l.ExpandedFields, 15_000},
		{"fragments", &l.Fragments, 200},
		{"fragment depth", &l.FragmentDepth, 20},
		{"depth", &l.Depth, 20},
		{"aliases", &l.Aliases, 100},
		{"root fields", &l.RootFields, 30},
		{"directives", &l.Directives, 200},
		{"complexity", &l.Complexity, 50_000},
		{"list size", &l.ListSize, 20},
		{"page size", &l.PageSize, 100},
		{"errors", &l.Errors, 50},
		{"response bytes", &l.Response, 16 << 20},
	} {
		if *p.value < 0 {
			return l, fmt.Errorf("operation limits: %s must not be negative, but is %d", p.name, *p.value)
		}
		*p.value = cmp.Or(*p.value, p.fallback)
	}
	if l.Time < 0 {
		return l, fmt.Errorf("operation limits: time must not be negative, but is %s", l.Time)
	}
	l.Time = cmp.Or(l.Time, 10*time.Second)
	return l, nil
}

// within returns an error of the code if n passes the limit.
func within(code fault.Code, n, limit int, what string) error {
	if n <= limit {
		return nil
	}
	return fault.New(fault.Invalid, code, "The request has more than %d %s, which is the most that one may have.", limit, what)
}
