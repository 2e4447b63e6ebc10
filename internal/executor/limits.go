package executor

import (
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/setting"
)

// Limits bounds what one request may ask for. Zero means the default; Settings
// says what each limit counts. All but Errors, Response and Time are checked before
// a document is validated or executed.
type Limits struct {
	Document, Tokens, Operations             int
	Fields, ExpandedFields                   int
	Fragments, FragmentDepth, Depth, Aliases int
	RootFields, Directives                   int
	Complexity, ListSize, PageSize           int
	Errors, Response                         int
	Time                                     time.Duration
}

// Settings declares the limits.
func (l *Limits) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Internal(&l.Document, 256<<10, "bytes of a document's text"),
		setting.Count(&l.Tokens, "LIMIT_TOKENS", 10_000, "lexical tokens of a document"),
		setting.Count(&l.Operations, "LIMIT_OPERATIONS", 50, "operations in a document"),
		setting.Count(&l.Fields, "LIMIT_FIELDS", 3_000, "fields as written in a document"),
		setting.Count(&l.ExpandedFields, "LIMIT_EXPANDED_FIELDS", 15_000, "fields of a document, with the fields of each fragment counted wherever it is spread"),
		setting.Count(&l.Fragments, "LIMIT_FRAGMENTS", 200, "fragment definitions in a document"),
		setting.Count(&l.FragmentDepth, "LIMIT_FRAGMENT_DEPTH", 20, "longest chain of fragments that spread fragments"),
		setting.Count(&l.Depth, "LIMIT_DEPTH", 20, "nested fields of an operation, and nested lists and objects of a value"),
		setting.Count(&l.Aliases, "LIMIT_ALIASES", 100, "fields with an alias"),
		setting.Count(&l.RootFields, "LIMIT_ROOT_FIELDS", 30, "fields at the root of an operation, with fragments expanded"),
		setting.Count(&l.Directives, "LIMIT_DIRECTIVES", 200, "directives in a document"),
		setting.Count(&l.Complexity, "LIMIT_COST", 50_000, "cost of an operation: each field counts once for each item of the lists around it, a `totalCount` as 100 fields"),
		setting.Internal(&l.ListSize, 20, "items that the cost assumes for a list without a page size"),
		setting.Internal(&l.PageSize, 100, "items above which the cost counts no further, as no resolver returns more"),
		setting.Count(&l.Errors, "LIMIT_ERRORS", 50, "errors in a response"),
		setting.Count(&l.Response, "LIMIT_RESPONSE_BYTES", 16<<20, "bytes of the data of a response"),
		setting.Duration(&l.Time, "LIMIT_REQUEST_TIME", 10*time.Second, "run time of a query or mutation"),
	}
}

// maxName bounds a name in a document, in bytes. Errors repeat names, suggestions
// compare them, and the parser does not limit the length of a token.
const maxName = 200

// maxLiteral bounds the nesting of lists and objects in a value, and of lists in a
// type. The check of a value reads its content again on each level.
const maxLiteral = 12

func (l Limits) withDefaults() (Limits, error) {
	err := setting.ApplyDefaults("executor limits", l.Settings())
	return l, err
}

// checkLimit returns an error of the code if n exceeds the limit.
func checkLimit(code fault.Code, n, limit int, what string) error {
	if n <= limit {
		return nil
	}
	return fault.New(code, "The request has more than %d %s, which is the most that one may have.", limit, what)
}
