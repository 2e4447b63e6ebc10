package executor

import (
	"crypto/sha256"
	"encoding/json"
	"hash"
	"strconv"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/lexer"
)

// digest is equal for subscriptions that ask for the same.
type digest [sha256.Size]byte

// tokens is a document without what has no meaning: spaces, commas, comments.
type tokens struct {
	digest  digest
	dollars map[string]int // how often each variable is named
}

// readTokens reads the tokens of a document that was parsed.
func readTokens(query string) tokens {
	t := tokens{dollars: map[string]int{}}
	h, l := sha256.New(), lexer.New(&ast.Source{Input: query})
	afterDollar := false
	for tok, err := l.ReadToken(); err == nil && tok.Kind != lexer.EOF; tok, err = l.ReadToken() {
		if tok.Kind == lexer.Comment {
			continue
		}
		writePart(h, strconv.Itoa(int(tok.Kind))+tok.Value)
		if afterDollar {
			t.dollars[tok.Value]++
		}
		afterDollar = tok.Kind == lexer.Dollar
	}
	h.Sum(t.digest[:0])
	return t
}

// digest returns what the operation shares with equal ones: document, name and
// variables but for the place to begin at; ok is false if that cannot be told.
func (o *Operation) digest() (d digest, ok bool) {
	variables := make(map[string]any, len(o.variables))
	begin := o.beginsAt()
	for name, v := range o.variables {
		if name != begin {
			variables[name] = v
		}
	}
	text, err := json.Marshal(variables)
	if err != nil || o.document.tokens == nil {
		return d, false
	}
	h := sha256.New()
	writePart(h, string(o.document.tokens.digest[:]))
	writePart(h, o.definition.Name)
	writePart(h, string(text))
	h.Sum(d[:0])
	return d, true
}

// beginsAt returns the variable that says behind which cursor a subscription
// begins, empty if there is none or it is used for something else too.
func (o *Operation) beginsAt() string {
	field, ok := o.definition.SelectionSet[0].(*ast.Field)
	if !ok {
		return ""
	}
	after := field.Arguments.ForName("after")
	if after == nil || after.Value.Kind != ast.Variable || o.document.tokens == nil {
		return ""
	}
	const definedAndUsed = 2
	if name := after.Value.Raw; o.document.tokens.dollars[name] == definedAndUsed {
		return name
	}
	return ""
}

// writePart writes text so that no two lists of texts are written alike.
func writePart(h hash.Hash, text string) {
	h.Write([]byte(strconv.Itoa(len(text)) + ":" + text)) // documented never to fail
}
