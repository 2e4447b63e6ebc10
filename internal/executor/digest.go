package executor

import (
	"crypto/sha256"
	"encoding/json"
	"hash"
	"strconv"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/lexer"
)

// digest identifies equal subscriptions.
type digest [sha256.Size]byte

// documentTokens is a document without insignificant text: spaces, commas, comments.
type documentTokens struct {
	digest  digest
	dollars map[string]int // how often each variable occurs
}

// readTokens reads the tokens of a parsed document.
func readTokens(query string) documentTokens {
	t := documentTokens{dollars: map[string]int{}}
	h, l := sha256.New(), lexer.New(&ast.Source{Input: query})
	afterDollar := false
	for tok, err := l.ReadToken(); err == nil && tok.Kind != lexer.EOF; tok, err = l.ReadToken() {
		if tok.Kind == lexer.Comment {
			continue
		}
		writeLengthPrefixed(h, strconv.Itoa(int(tok.Kind))+tok.Value)
		if afterDollar {
			t.dollars[tok.Value]++
		}
		afterDollar = tok.Kind == lexer.Dollar
	}
	h.Sum(t.digest[:0])
	return t
}

// shareDigest returns the digest that equal subscriptions have in common: of document,
// name and variables except the start cursor; ok is false if the operation has none.
// Its cost grows with the variables, so only subscriptions compute it.
func (o *Operation) shareDigest() (d digest, ok bool) {
	if o.document.tokens == nil {
		return d, false
	}
	variables := make(map[string]any, len(o.variables))
	begin := o.afterVariable()
	for name, v := range o.variables {
		if name != begin {
			variables[name] = v
		}
	}
	text, err := json.Marshal(variables)
	if err != nil {
		return d, false
	}
	h := sha256.New()
	writeLengthPrefixed(h, string(o.document.tokens.digest[:]))
	writeLengthPrefixed(h, o.definition.Name)
	writeLengthPrefixed(h, string(text))
	h.Sum(d[:0])
	return d, true
}

// afterVariable returns the variable that holds the cursor after which a subscription
// starts, empty if there is none or it is used elsewhere too.
func (o *Operation) afterVariable() string {
	field, ok := o.definition.SelectionSet[0].(*ast.Field)
	if !ok {
		return ""
	}
	after := field.Arguments.ForName("after")
	if after == nil || after.Value.Kind != ast.Variable {
		return ""
	}
	const definedAndUsed = 2
	if name := after.Value.Raw; o.document.tokens.dollars[name] == definedAndUsed {
		return name
	}
	return ""
}

// writeLengthPrefixed writes text with its length, so that different lists of texts
// never give the same bytes.
func writeLengthPrefixed(h hash.Hash, text string) {
	h.Write([]byte(strconv.Itoa(len(text)) + ":" + text)) // documented never to fail
}
