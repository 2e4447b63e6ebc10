package main_test

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deniedWords stand for a caller, node, consumer or operator that the sentence should
// name, or were private words for ideas that have a name in the field. Beside each is what
// to write; docs/glossary.md has the terms.
var deniedWords = map[string]string{
	`nobody|somebody|whoever|anybody|everybody`: "name the caller, client, node, consumer or operator",
	`strangers?`:                         "anonymous caller",
	`old world|of the old`:               "legacy REST",
	`crowds?`:                            "subscription group",
	`tenures?|tenancy|tenancies`:         "lease",
	`dockets?|presides`:                  "reconcile loop, lease owner",
	`census`:                             "mass-failure guard, document metrics",
	`bury|buried|burial`:                 "park (as a dead letter)",
	`desk`:                               "pick tracker",
	`lent|lends`:                         "issue, issued",
	`careless`:                           "say what is wrong",
	`patience`:                           "limit, timeout",
	`acquaintances?`:                     "cached principal",
	`twins?`:                             "duplicate",
	`flown|in flown`:                     "in-flight batch",
	`eras?`:                              "generation",
	`overseer`:                           "dead letter administration",
	`echoes`:                             "demo services",
	`untold|unheard|misheard`:            "not notified",
	`bygone|erstwhile|henceforth|hither`: "write plainly",
}

// allowedWords are uses that name something of the outside: by file, the text.
var allowedWords = map[string][]string{
	"internal/testenv/local/postgres.go": {"nobody"}, // a user of the operating system
	"words_test.go":                      nil,        // the list itself; see readProse
}

// TestWords holds the prose of the project to the deny-list: comments and texts of
// hand-written Go files, documents, schema files and scripts.
func TestWords(t *testing.T) {
	t.Parallel()
	var denied []string
	for pattern := range deniedWords {
		denied = append(denied, pattern)
	}
	all := regexp.MustCompile(`(?i)\b(?:` + strings.Join(denied, "|") + `)\b`)
	for _, file := range proseFiles(t) {
		for _, p := range readProse(t, file) {
			for _, word := range all.FindAllString(p.text, -1) {
				if !slices.Contains(allowedWords[file], word) {
					t.Errorf("%s:%d says %q: %s", file, p.line, word, adviceFor(word))
				}
			}
		}
	}
}

func adviceFor(word string) string {
	for pattern, advice := range deniedWords {
		if regexp.MustCompile(`(?i)^(?:` + pattern + `)$`).MatchString(word) {
			return advice
		}
	}
	return "see docs/glossary.md"
}

// proseFiles lists what the project has written by hand, generated and vendored files
// left out.
func proseFiles(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "ls-files", "-co", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	kinds := []string{".go", ".md", ".graphqls", ".graphql", ".yml", ".yaml", ".sh", ".mjs", ".sql", "Makefile"}
	return slices.DeleteFunc(strings.Fields(string(out)), func(file string) bool {
		if _, err := os.Stat(file); err != nil {
			return true // removed, and not yet staged
		}
		return file == "words_test.go" || strings.Contains(file, "graphiql/") || !slices.ContainsFunc(kinds, func(kind string) bool { return strings.HasSuffix(file, kind) })
	})
}

// prose is a piece of text and the line it begins on.
type prose struct {
	line int
	text string
}

// readProse returns the comments and string literals of a Go file, none of a generated
// one, and the whole of any other.
func readProse(t *testing.T, file string) (all []prose) {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(file) != ".go" {
		for i, line := range strings.Split(string(src), "\n") {
			all = append(all, prose{i + 1, line})
		}
		return all
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, src, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if ast.IsGenerated(parsed) {
		return nil
	}
	var s scanner.Scanner
	tokens := fset.AddFile(file, fset.Base(), len(src))
	for s.Init(tokens, src, nil, scanner.ScanComments); ; {
		pos, tok, text := s.Scan()
		switch {
		case tok == token.EOF:
			return all
		case tok == token.COMMENT || tok == token.STRING:
			all = append(all, prose{tokens.Line(pos), text})
		case tok == token.IDENT && strings.HasPrefix(text, "Test"):
			all = append(all, prose{tokens.Line(pos), strings.ReplaceAll(text, "_", " ")})
		}
	}
}

// pathStep is a line of docs/architecture.md that names functions of a file.
var pathStep = regexp.MustCompile("^`([a-z][a-z0-9_./]+\\.go)`: (`[A-Za-z]+`(?: `[A-Za-z]+`)*)")

// TestPaths holds the paths of docs/architecture.md to the code: each function that a
// step names is declared in its file, and no path enters a file more than three times.
func TestPaths(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	steps, entered := 0, map[string]int{}
	for line := range strings.Lines(string(text)) {
		m := pathStep.FindStringSubmatch(line)
		if m == nil {
			if strings.HasPrefix(line, "**") {
				clear(entered) // the next path begins
			}
			continue
		}
		steps++
		if entered[m[1]]++; entered[m[1]] > 3 {
			t.Errorf("a path enters %s more than three times", m[1])
		}
		declared := declaredFunctions(t, m[1])
		for name := range strings.FieldsSeq(m[2]) {
			if name = strings.Trim(name, "`"); !declared[name] {
				t.Errorf("docs/architecture.md names %s of %s, which is not declared there", name, m[1])
			}
		}
	}
	if steps < 30 {
		t.Errorf("only %d steps were found", steps)
	}
}

func declaredFunctions(t *testing.T, file string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return nil
	}
	all := map[string]bool{}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			all[fn.Name.Name] = true
		}
	}
	return all
}

// TestDecisions_are_listed wants each page of docs/decisions in the table of its README.
func TestDecisions_are_listed(t *testing.T) {
	t.Parallel()
	index, err := os.ReadFile("docs/decisions/README.md")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("docs/decisions/0*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("there are %d pages of decisions: %v", len(pages), err)
	}
	for _, p := range pages {
		if !strings.Contains(string(index), "("+filepath.Base(p)+")") {
			t.Errorf("docs/decisions/README.md does not list %s", filepath.Base(p))
		}
	}
}
