// Command measure counts what a reader of the code meets: the sizes of functions, files
// and packages, exported names and how many have a doc comment, function names of a
// single word, and words of the deny-list.
//
//	go -C tools run ./measure [-package] ..
//
// It reads the hand-written Go files below the folder, without tests: a file that says
// "Code generated … DO NOT EDIT" does not count. Sizes are lines from the signature to the
// closing brace; "50/90/max" are the median, the 90th percentile and the largest.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
)

// The limits that a package explains in its doc when it passes them.
const (
	maxExported = 60
	maxFiles    = 20
)

// count is what was counted in a package, or in all of them.
type count struct {
	name      string
	files     []int // lines of each
	functions []int // lines of each
	exported  int
	described int // of exported, with a doc comment
	names     int // of functions and methods
	oneWord   int // of names
	doc       bool
}

func main() {
	byPackage := flag.Bool("package", false, "print a row for each package")
	flag.Parse()
	root := cmp.Or(flag.Arg(0), ".")
	packages, err := measure(root)
	if err == nil {
		err = report(packages, *byPackage)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

// measure counts each package below the root.
func measure(root string) ([]*count, error) {
	packages := map[string]*count{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && skipsFolder(entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if packages[dir] == nil {
			packages[dir] = &count{name: dir}
		}
		return packages[dir].addFile(path)
	})
	var all []*count
	for _, p := range packages {
		if len(p.files) > 0 {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *count) int { return strings.Compare(a.name, b.name) })
	return all, err
}

func skipsFolder(name string) bool {
	return name == "node_modules" || name == "testdata" || name == "tools" || strings.HasPrefix(name, ".") && name != "." && name != ".."
}

func (c *count) addFile(path string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	if ast.IsGenerated(f) {
		return nil
	}
	line := func(p token.Pos) int { return fset.Position(p).Line }
	c.files = append(c.files, line(f.FileEnd))
	c.doc = c.doc || f.Doc != nil
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			c.functions = append(c.functions, line(d.End())-line(d.Pos())+1)
			c.addFunction(d)
		case *ast.GenDecl:
			c.addDeclaration(d)
		}
	}
	return nil
}

func (c *count) addFunction(d *ast.FuncDecl) {
	c.names++
	if words(d.Name.Name) == 1 {
		c.oneWord++
	}
	if d.Recv == nil || exportedReceiver(d.Recv) {
		c.addName(d.Name, d.Doc, d.Recv == nil)
	}
}

func (c *count) addDeclaration(d *ast.GenDecl) {
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			c.addName(s.Name, cmp.Or(s.Doc, s.Comment, d.Doc), true)
		case *ast.ValueSpec:
			for _, name := range s.Names {
				c.addName(name, cmp.Or(s.Doc, s.Comment, d.Doc), true)
			}
		}
	}
}

// addName counts an exported name; methods count for the documented share alone.
func (c *count) addName(name *ast.Ident, doc *ast.CommentGroup, ofPackage bool) {
	if !name.IsExported() {
		return
	}
	if ofPackage {
		c.exported++
	}
	if doc != nil && ofPackage {
		c.described++
	}
}

func exportedReceiver(recv *ast.FieldList) bool {
	exported := false
	ast.Inspect(recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			exported = exported || id.IsExported()
			return false
		}
		return true
	})
	return exported
}

// words counts the words of a name in camel case; HTTPServer has two.
func words(name string) int {
	n, previous := 1, rune(0)
	runes := []rune(name)
	for i, r := range runes {
		starts := unicode.IsUpper(r) && (unicode.IsLower(previous) || i+1 < len(runes) && unicode.IsLower(runes[i+1]) && unicode.IsUpper(previous))
		if i > 0 && starts || r == '_' {
			n++
		}
		previous = r
	}
	return n
}

func report(packages []*count, byPackage bool) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "package\tfiles\tlines\tfile 50/90/max\tfunction 50/90/max\texported\tdocumented\tone-word names\t\n")
	total := &count{name: "all", doc: true}
	for _, p := range packages {
		if byPackage || p.remark() != "" {
			fmt.Fprint(w, p.row())
		}
		total.files, total.functions = append(total.files, p.files...), append(total.functions, p.functions...)
		total.exported, total.described = total.exported+p.exported, total.described+p.described
		total.names, total.oneWord = total.names+p.names, total.oneWord+p.oneWord
	}
	fmt.Fprint(w, total.row())
	return w.Flush()
}

func (c *count) row() string {
	lines := 0
	for _, n := range c.files {
		lines += n
	}
	return fmt.Sprintf("%s\t%d\t%d\t%s\t%s\t%d\t%d%%\t%d%%\t%s\n", c.name, len(c.files), lines, spread(c.files), spread(c.functions),
		c.exported, percent(c.described, c.exported), percent(c.oneWord, c.names), c.remark())
}

// remark says which limit of the house a package passes.
func (c *count) remark() string {
	var passed []string
	switch {
	case c.name == "all":
		return ""
	case c.exported > maxExported:
		passed = append(passed, fmt.Sprintf("over %d exported names", maxExported))
	}
	if len(c.files) > maxFiles {
		passed = append(passed, fmt.Sprintf("over %d files", maxFiles))
	}
	if !c.doc {
		passed = append(passed, "no package doc")
	}
	return strings.Join(passed, ", ")
}

func spread(sizes []int) string {
	if len(sizes) == 0 {
		return "-"
	}
	slices.Sort(sizes)
	return fmt.Sprintf("%d/%d/%d", sizes[len(sizes)/2], sizes[len(sizes)*9/10], sizes[len(sizes)-1])
}

func percent(part, whole int) int {
	if whole == 0 {
		return 100
	}
	return (100*part + whole/2) / whole
}
