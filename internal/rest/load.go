package rest

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/rules"
)

// builtIn are the operations of the legacy REST routes.
//
//go:embed operations/*.graphql
var builtIn embed.FS

// directives are the definitions of the directives of operations.
//
//go:embed directives.graphqls
var directives string

// maxFile bounds the file of an operation, in bytes.
const maxFile = 64 << 10

// source is a file, or the part of one, that holds one operation.
type source struct {
	name  string // path for messages
	text  string
	own   bool // of the operator, not of the binary
	above int  // lines of the file above the text
}

// readSources returns the operations of the binary and those of the folder, if not empty,
// in the order of their names.
func readSources(folder string) ([]source, error) {
	built, err := readFolder(builtIn, "operations", "operations", false)
	if err != nil || folder == "" {
		return built, err
	}
	own, err := readFolder(os.DirFS(folder), ".", folder, true)
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok { // which names files as seen from the folder
			err = &fs.PathError{Op: pathErr.Op, Path: path.Join(folder, pathErr.Path), Err: pathErr.Err}
		}
		return nil, fmt.Errorf("read the stored operations (BACKPLANE_REST_OPERATIONS): %w", err)
	}
	return append(built, own...), nil
}

func readFolder(fsys fs.FS, dir, shown string, own bool) ([]source, error) {
	names, err := fs.Glob(fsys, path.Join(dir, "*.graphql"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 { // Glob returns nothing for a folder that it cannot read
		if _, err := fs.ReadDir(fsys, dir); err != nil {
			return nil, err
		}
	}
	sources := make([]source, 0, len(names))
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		if len(text) > maxFile {
			return nil, fmt.Errorf("%s has more than %d bytes", path.Join(shown, path.Base(name)), maxFile)
		}
		sources = append(sources, source{name: path.Join(shown, path.Base(name)), text: string(text), own: own}.splitOperations()...)
	}
	return sources, nil
}

// splitOperations returns a source for each operation of a file, with the comment above it.
// A fragment belongs to the operation before it. What is not a list of operations, each on
// lines of its own, stays whole: parseOperation says what is wrong with it.
func (s source) splitOperations() []source {
	doc, err := parser.ParseQuery(&ast.Source{Name: s.name, Input: s.text})
	if err != nil || len(doc.Operations) < 2 {
		return []source{s}
	}
	lines := strings.SplitAfter(s.text, "\n")
	var starts []int
	for _, op := range doc.Operations[1:] {
		start := op.Position.Line - 1
		for start > 0 && strings.HasPrefix(lines[start-1], "#") {
			start--
		}
		starts = append(starts, start)
	}
	parts, from := []source{}, 0
	for _, to := range append(starts, len(lines)) {
		if to == from {
			return []source{s}
		}
		parts = append(parts, source{s.name, strings.Join(lines[from:to], ""), s.own, from})
		from = to
	}
	return parts
}

// storedOperation is a valid operation with its directives.
type storedOperation struct {
	source
	doc    *ast.QueryDocument
	op     *ast.OperationDefinition
	rest   *restDirective   // nil for a lookup
	lookup *lookupDirective // nil for a route
	from   map[string]fromDirective
}

// errorAt is an error at a line of the file.
func (s source) errorAt(pos *ast.Position, format string, args ...any) error {
	line := 1
	if pos != nil {
		line = pos.Line
	}
	return fmt.Errorf("%s:%d: %s", s.name, s.above+line, fmt.Sprintf(format, args...))
}

// parseOperation parses the operation and validates it against the schema, which has the
// directives. Its error joins all mistakes, each with file and line.
func (s source) parseOperation(schema *ast.Schema) (*storedOperation, error) {
	doc, err := parser.ParseQuery(&ast.Source{Name: s.name, Input: s.text})
	if err != nil {
		return nil, s.errorsAt(err)
	}
	if len(doc.Operations) != 1 || doc.Operations[0].Name == "" {
		return nil, s.errorAt(nil, "a file holds operations, each with a name, from the start of a line on")
	}
	if errs := validator.ValidateWithRules(schema, doc, rules.NewDefaultRules()); len(errs) > 0 {
		return nil, s.errorsAt(errs)
	}
	st := &storedOperation{source: s, doc: doc, op: doc.Operations[0]}
	return st, st.readDirectives()
}

// errorsAt gives every error of the parser or validator its file and line.
func (s source) errorsAt(err error) error {
	list, ok := errors.AsType[gqlerror.List](err)
	if !ok {
		one, ok := errors.AsType[*gqlerror.Error](err)
		if !ok {
			return s.errorAt(nil, "%v", err)
		}
		list = gqlerror.List{one}
	}
	var all []error
	for _, e := range list {
		var pos *ast.Position
		if len(e.Locations) > 0 {
			pos = &ast.Position{Line: e.Locations[0].Line}
		}
		all = append(all, s.errorAt(pos, "%s", e.Message))
	}
	return errors.Join(all...)
}

// documentation returns the comment above the operation: its first line and the rest.
func (s source) documentation() (summary, more string) {
	var lines []string
	for line := range strings.Lines(s.text) {
		text, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		lines = append(lines, strings.TrimSpace(text))
	}
	if len(lines) == 0 {
		return "", ""
	}
	return lines[0], strings.TrimSpace(strings.Join(lines[1:], "\n"))
}

// withDirectives returns the schema with the directives of this package, to validate
// operations. The executor never sees these.
func withDirectives(schema *ast.Schema) (*ast.Schema, error) {
	doc, err := parser.ParseSchema(&ast.Source{Name: "directives.graphqls", Input: directives})
	if err != nil {
		return nil, fmt.Errorf("parse the directives: %w", err)
	}
	own := *schema
	own.Types, own.Directives = maps.Clone(schema.Types), maps.Clone(schema.Directives)
	for _, def := range doc.Definitions {
		own.Types[def.Name] = def
	}
	for _, d := range doc.Directives {
		own.Directives[d.Name] = d
	}
	return &own, nil
}

// parseAll parses every file. An operator's operation replaces the built-in one of the
// same name.
func parseAll(schema *ast.Schema, sources []source) ([]*storedOperation, error) {
	var all []*storedOperation
	var errs []error
	for _, src := range sources {
		st, err := src.parseOperation(schema)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		at := slices.IndexFunc(all, func(other *storedOperation) bool { return other.op.Name == st.op.Name })
		switch {
		case at < 0:
			all = append(all, st)
		case all[at].own == src.own:
			errs = append(errs, src.errorAt(st.op.Position, "%s has an operation %s, too", all[at].name, st.op.Name))
		default:
			all[at] = st
		}
	}
	return all, errors.Join(errs...)
}
