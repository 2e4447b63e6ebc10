package rest

import (
	"encoding/json"
	"fmt"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/fault"
)

// The directives of directives.graphqls.
type (
	restDirective struct {
		Method    string       `json:"method"`
		Path      string       `json:"path"`
		When      callerKind   `json:"when"`
		Status    int          `json:"status"`
		Unwrap    string       `json:"unwrap"`
		IDs       string       `json:"ids"`
		Absent    *absence     `json:"absent"`
		Constants []constant   `json:"constants"`
		Statuses  []codeStatus `json:"statuses"`
	}
	fromDirective struct {
		Path   string     `json:"path"`
		Header string     `json:"header"`
		Query  names      `json:"query"`
		Body   names      `json:"body"`
		Offset string     `json:"offset"`
		Page   string     `json:"page"`
		Orders []constant `json:"orders"`
		Text   bool       `json:"text"`
		Legacy string     `json:"legacy"`
	}
	lookupDirective struct {
		Unwrap string `json:"unwrap"`
	}
	absence struct {
		Field string `json:"field"`
		Value string `json:"value"`
	}
	constant struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	codeStatus struct {
		Code   fault.Code `json:"code"`
		Status int        `json:"status"`
	}
)

// names is a list of names; a single name decodes as a list of one.
type names []string

// UnmarshalJSON implements json.Unmarshaler.
func (n *names) UnmarshalJSON(text []byte) error {
	if text[0] == '"' {
		*n = make(names, 1)
		return json.Unmarshal(text, &(*n)[0])
	}
	return json.Unmarshal(text, (*[]string)(n))
}

// callerKind says which callers a route serves.
type callerKind string

const (
	anyCaller callerKind = "ANY"
	anonymous callerKind = "ANONYMOUS"
	signedIn  callerKind = "SIGNED_IN"
)

// legacyIDs is the value of ids that shows legacy ids.
const legacyIDs = "LEGACY"

// readDirectives moves the directives from the operation to s.
func (s *storedOperation) readDirectives() error {
	for _, d := range s.op.Directives {
		switch d.Name {
		case "rest":
			s.rest = new(restDirective)
			if err := decodeArguments(d, s.rest); err != nil {
				return s.errorAt(d.Position, "%v", err)
			}
		case "lookup":
			s.lookup = new(lookupDirective)
			if err := decodeArguments(d, s.lookup); err != nil {
				return s.errorAt(d.Position, "%v", err)
			}
		}
	}
	if (s.rest == nil) == (s.lookup == nil) {
		return s.errorAt(s.op.Position, "an operation has either @rest or @lookup")
	}
	s.op.Directives = nil
	s.from = make(map[string]fromDirective, len(s.op.VariableDefinitions))
	for _, v := range s.op.VariableDefinitions {
		if d := v.Directives.ForName("from"); d != nil {
			var from fromDirective
			if err := decodeArguments(d, &from); err != nil {
				return s.errorAt(d.Position, "%v", err)
			}
			s.from[v.Variable] = from
		}
		v.Directives = nil
	}
	return nil
}

// decodeArguments reads the arguments of a directive that was validated.
func decodeArguments(d *ast.Directive, into any) error {
	text, err := json.Marshal(d.ArgumentMap(nil))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("@%s: %w", d.Name, err)
	}
	return nil
}
