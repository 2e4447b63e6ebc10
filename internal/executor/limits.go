package executor

import (
	"cmp"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Limits bounds one request. Zero means the default. All but Errors, Response and
// Time are checked before a document is validated or executed.
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
	ListSize       int           // items that the cost assumes for a list without first or last; default 20
	PageSize       int           // cap on the items that the cost counts: no resolver returns more; default 100
	Errors         int           // errors in one response; default 50
	Response       int           // bytes of the data of one response; default 16 MiB
	Time           time.Duration // run time of a query or mutation; default 10 s
}

// maxName bounds a name in a document, in bytes. Errors repeat names, suggestions
// compare them, and the parser does not limit the length of a token.
const maxName = 200

// maxLiteral bounds the nesting of lists and objects in a value, and of lists in a
// type. The check of a value reads its content again on each level.
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
			return l, fmt.Errorf("executor limits: %s must not be negative, but is %d", p.name, *p.value)
		}
		*p.value = cmp.Or(*p.value, p.fallback)
	}
	if l.Time < 0 {
		return l, fmt.Errorf("executor limits: time must not be negative, but is %s", l.Time)
	}
	l.Time = cmp.Or(l.Time, 10*time.Second)
	return l, nil
}

// checkLimit returns an error of the code if n exceeds the limit.
func checkLimit(code fault.Code, n, limit int, what string) error {
	if n <= limit {
		return nil
	}
	return fault.New(fault.Invalid, code, "The request has more than %d %s, which is the most that one may have.", limit, what)
}
