package executor

import (
	"crypto/sha256"
	"errors"
	"slices"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/backplane-dev/backplane/internal/fault"
)

// document is a parsed and validated document. It is read-only: requests with
// the same text share it.
type document struct {
	ast       *ast.QueryDocument
	fragments map[string]*ast.FragmentDefinition
	shapes    map[*ast.OperationDefinition]shape
	tokens    *tokens // nil if it has no subscription
	bytes     int64   // about what it takes in memory
}

// nodeBytes is about what a field or value takes once parsed, with its
// positions and its share of slices.
const nodeBytes = 400

// document returns the prepared document of the text, from the cache if it was
// seen before. Only valid documents are kept.
func (x *Executor) document(query string) (*document, *Refusal) {
	key := sha256.Sum256([]byte(query))
	if doc, ok := x.documents.get(string(key[:])); ok {
		return doc, nil
	}
	doc, refusal := x.load(query)
	if refusal != nil {
		return nil, refusal
	}
	x.documents.put(string(key[:]), doc, doc.bytes)
	return doc, nil
}

func (x *Executor) load(query string) (*document, *Refusal) {
	parsed, refusal := x.parse(query)
	if refusal != nil {
		return nil, refusal
	}
	count := census{limits: x.limits}
	if err := count.take(parsed); err != nil {
		return nil, refuse(StageLimit, err)
	}
	if count.introspects && x.cfg.DisableIntrospection {
		return nil, refuse(StageValidate, fault.New(fault.Forbidden, fault.IntrospectionDisabled, "Introspection is switched off."))
	}
	shapes, expanded, err := x.limits.measure(parsed)
	if err != nil {
		return nil, refuse(stageOf(err), err)
	}
	doc := &document{ast: parsed, fragments: expanded.fragments, shapes: shapes, bytes: int64(len(query) + count.nodes*nodeBytes)}
	if errs := x.rules.validate(x.schema.Schema(), doc, x.limits); len(errs) > 0 {
		return nil, &Refusal{StageValidate, errs}
	}
	for _, op := range parsed.Operations {
		dropDefer(op.SelectionSet)
		if op.Operation == ast.Subscription && doc.tokens == nil {
			t := readTokens(query)
			doc.tokens = &t
		}
	}
	for _, f := range parsed.Fragments {
		dropDefer(f.SelectionSet)
	}
	return doc, nil
}

// dropDefer removes @defer, which a server may ignore: a response is one piece
// on every transport.
func dropDefer(set ast.SelectionSet) {
	isDefer := func(d *ast.Directive) bool { return d.Name == "defer" }
	for _, sel := range set {
		switch sel := sel.(type) {
		case *ast.Field:
			dropDefer(sel.SelectionSet)
		case *ast.InlineFragment:
			sel.Directives = slices.DeleteFunc(sel.Directives, isDefer)
			dropDefer(sel.SelectionSet)
		case *ast.FragmentSpread:
			sel.Directives = slices.DeleteFunc(sel.Directives, isDefer)
		}
	}
}

// stageOf tells a cycle of fragments, which no document may have, from a limit.
func stageOf(err error) Stage {
	if fault.Is(err, fault.ValidationFailed) {
		return StageValidate
	}
	return StageLimit
}

func (x *Executor) parse(query string) (*ast.QueryDocument, *Refusal) {
	if err := within(fault.BodyTooLarge, len(query), x.limits.Document, "bytes in its document"); err != nil {
		return nil, refuse(StageLimit, err)
	}
	if !utf8.ValidString(query) {
		return nil, refuse(StageParse, fault.New(fault.Invalid, fault.ParseFailed, "The document is not valid UTF-8."))
	}
	// One more than the limit, since the parser counts the end as a token.
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: query}, x.limits.Tokens+1)
	if err == nil && len(doc.Operations) == 0 {
		return nil, refuse(StageParse, fault.New(fault.Invalid, fault.ParseFailed, "The document has no operation."))
	}
	if err == nil {
		return doc, nil
	}
	if gqlErr, ok := errors.AsType[*gqlerror.Error](err); ok && len(gqlErr.Locations) > 0 {
		return nil, &Refusal{StageParse, gqlerror.List{shorten(gqlErr, fault.ParseFailed)}}
	}
	return nil, refuse(StageLimit, within(fault.TooManyTokens, x.limits.Tokens+1, x.limits.Tokens, "tokens"))
}

// operation returns the operation of the name, or the only one there is.
func (d *document) operation(name string) (*ast.OperationDefinition, error) {
	if name == "" && len(d.ast.Operations) > 1 {
		return nil, fault.New(fault.Invalid, fault.OperationUnresolvable,
			"The document has several operations: say with operationName which one to run.")
	}
	if op := d.ast.Operations.ForName(name); op != nil {
		return op, nil
	}
	return nil, fault.New(fault.Invalid, fault.OperationUnresolvable, "The document has no operation of the name that operationName asks for.")
}
