package executor

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

// document is a parsed and validated document. It is read-only: requests with the
// same text share it.
type document struct {
	ast       *ast.QueryDocument
	fragments map[string]*ast.FragmentDefinition
	sizes     map[*ast.OperationDefinition]selectionSize
	nonNull   map[*ast.OperationDefinition]map[string]variableUsage // nullable variables that must not be null, with a use that forbids it
	tokens    *documentTokens                                       // nil if it has no subscription
	bytes     int64                                                 // estimate of its memory
	plans     *documentPlans                                        // nil if operations are not planned
}

// nodeBytes estimates the memory of a parsed field or value, with its positions and
// its share of slices.
const nodeBytes = 400

// prepareDocument returns the prepared document of the text, from the cache if it was
// seen before. Only valid documents are cached.
func (p *Preparer) prepareDocument(ctx context.Context, query string) (*document, *Refusal) {
	key := sha256.Sum256([]byte(query))
	if doc, ok := p.documents.get(string(key[:])); ok {
		return doc, nil
	}
	release, err := p.workload.parse(ctx)
	if err != nil {
		return nil, NewRefusal(err)
	}
	defer release()
	if doc, ok := p.documents.get(string(key[:])); ok { // parsed meanwhile
		return doc, nil
	}
	doc, refusal := p.parseAndValidate(query)
	if refusal != nil {
		return nil, refusal
	}
	size := doc.bytes
	if doc.plans != nil {
		size += doc.plans.bytes()
	}
	p.documents.put(string(key[:]), doc, size)
	return doc, nil
}

func (p *Preparer) parseAndValidate(query string) (*document, *Refusal) {
	parsed, refusal := p.parseDocument(query)
	if refusal != nil {
		return nil, refusal
	}
	count := documentMetrics{limits: p.limits}
	if err := count.measure(parsed); err != nil {
		return nil, refuseAt(StageLimit, err)
	}
	if count.introspects && p.cfg.DisableIntrospection {
		return nil, refuseAt(StageValidate, fault.New(fault.IntrospectionDisabled, "Introspection is switched off."))
	}
	sizes, expanded, err := p.limits.measureOperations(parsed)
	if err != nil {
		return nil, refuseAt(stageOf(err), err)
	}
	doc := &document{ast: parsed, fragments: expanded.fragments, sizes: sizes, bytes: int64(len(query) + count.nodes*nodeBytes)}
	if errs := p.rules.validateDocument(p.schema, doc, p.limits); len(errs) > 0 {
		return nil, &Refusal{StageValidate, errs}
	}
	if p.cfg.Planned {
		doc.plans = newDocumentPlans(count.nodes)
	}
	for _, op := range parsed.Operations {
		if op.Operation == ast.Subscription && doc.tokens == nil {
			t := readTokens(query)
			doc.tokens = &t
		}
	}
	return doc, nil
}

// stageOf returns the stage of an error of measureOperations: validation for a cycle of
// fragments, else a limit.
func stageOf(err error) Stage {
	if fault.Is(err, fault.GraphQLValidationFailed) {
		return StageValidate
	}
	return StageLimit
}

func (p *Preparer) parseDocument(query string) (*ast.QueryDocument, *Refusal) {
	if err := checkLimit(fault.BodyTooLarge, len(query), p.limits.Document, "bytes in its document"); err != nil {
		return nil, refuseAt(StageLimit, err)
	}
	if !utf8.ValidString(query) {
		return nil, refuseAt(StageParse, fault.New(fault.GraphQLParseFailed, "The document is not valid UTF-8."))
	}
	if hasHalfSurrogate(query) {
		return nil, refuseAt(StageLimit, fault.New(fault.BadInput, "Text must not contain half of a surrogate pair."))
	}
	// One more than the limit, since the parser counts the end of input as a token.
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: query}, p.limits.Tokens+1)
	if err == nil && len(doc.Operations) == 0 {
		return nil, refuseAt(StageParse, fault.New(fault.GraphQLParseFailed, "The document has no operation."))
	}
	if err == nil {
		return doc, nil
	}
	if gqlErr, ok := errors.AsType[*gqlerror.Error](err); ok && len(gqlErr.Locations) > 0 {
		return nil, &Refusal{StageParse, gqlerror.List{presentDocumentError(gqlErr, fault.GraphQLParseFailed)}}
	}
	return nil, refuseAt(StageLimit, checkLimit(fault.TooManyTokens, p.limits.Tokens+1, p.limits.Tokens, "tokens"))
}

// hasHalfSurrogate reports whether a string of the document has an escape of half a surrogate
// pair, which the parser would replace. Block strings have no such escapes.
func hasHalfSurrogate(query string) bool {
	const block = `"""`
	for i := 0; i < len(query); {
		switch rest := query[i:]; {
		case rest[0] == '#':
			i += lengthUntil(rest, "\n")
		case strings.HasPrefix(rest, block):
			i += len(block)
			for i < len(query) && !strings.HasPrefix(query[i:], block) {
				if strings.HasPrefix(query[i:], `\`+block) {
					i += len(block)
				}
				i++
			}
			i += len(block)
		case rest[0] == '"':
			n, half := scanString(rest)
			if half {
				return true
			}
			i += n
		default:
			i++
		}
	}
	return false
}

func lengthUntil(s, end string) int {
	if n := strings.Index(s, end); n >= 0 {
		return n
	}
	return len(s)
}

// scanString returns the length of the string that s begins with, and whether it has an escape
// of half a surrogate pair.
func scanString(s string) (length int, half bool) {
	for i := 1; i < len(s); {
		switch s[i] {
		case '"', '\n', '\r':
			return i + 1, false
		case '\\':
			n, half := validate.EscapedSurrogate(s, i)
			if half {
				return i, true
			}
			i += n
		default:
			i++
		}
	}
	return len(s), false
}

// selectOperation returns the operation of the name, or the only one there is.
func (d *document) selectOperation(name string) (*ast.OperationDefinition, error) {
	if name == "" && len(d.ast.Operations) > 1 {
		return nil, fault.New(fault.OperationResolutionFailure,
			"The document has several operations: say with operationName which one to run.")
	}
	if op := d.ast.Operations.ForName(name); op != nil {
		return op, nil
	}
	return nil, fault.New(fault.OperationResolutionFailure, "The document has no operation of the name that operationName asks for.")
}
