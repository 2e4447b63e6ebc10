// Package main runs gqlgen with the plugin that writes the tables of the planned executor, see
// package plan: for each object type, how its fields are read. `make generate` runs it.
package main

import (
	_ "embed"
	"fmt"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/99designs/gqlgen/api"
	"github.com/99designs/gqlgen/codegen"
	"github.com/99designs/gqlgen/codegen/config"
	"github.com/99designs/gqlgen/codegen/templates"
	"github.com/vektah/gqlparser/v2/ast"
)

//go:embed plan.gotpl
var planTemplate string

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plangen:", err)
		os.Exit(1)
	}
}

func run() error {
	cfg, err := config.LoadConfigFromDefaultLocations()
	if err != nil {
		return err
	}
	return api.Generate(cfg, api.AddPlugin(plugin{}))
}

// plugin is a gqlgen plugin.
type plugin struct{}

func (plugin) Name() string { return "plan" }

// GenerateCode implements plugin.CodeGenerator.
func (plugin) GenerateCode(data *codegen.Data) error {
	t := tables{Data: data}
	for _, o := range data.Objects {
		if strings.HasPrefix(o.Name, "__") {
			continue
		}
		fields, err := tableOf(o)
		if err != nil {
			return err
		}
		t.Tables = append(t.Tables, table{o, fields})
	}
	for _, i := range data.Interfaces {
		t.Abstract = append(t.Abstract, i)
	}
	slices.SortFunc(t.Abstract, func(a, b *codegen.Interface) int { return strings.Compare(a.Name, b.Name) })
	return templates.Render(templates.Options{
		PackageName:     data.Config.Exec.Package,
		Filename:        filepath.Join(data.Config.Exec.Dir(), "plan.generated.go"),
		Template:        planTemplate,
		Data:            t,
		GeneratedHeader: true,
		Packages:        data.Config.Packages,
	})
}

// tables are the data of the template.
type tables struct {
	*codegen.Data

	Tables   []table
	Abstract []*codegen.Interface
}

type table struct {
	*codegen.Object

	Table []field
}

// field is a field of a table.
type field struct {
	*codegen.Field

	Waits  bool        // see plan.Field
	Append *types.Func // appends the value of a leaf as JSON; nil if there is none
	Method string      // in place of Append, a method of the object that appends the value as JSON
	Text   bool        // of Append
	Spread spread      // of a field with objects
}

// spread says how the objects of a Go value are added to plan.Values.
type spread struct {
	Slice   bool
	Nilable bool   // the value, or an item of the slice
	Address bool   // the object is the address of the value, or of the item
	Of      string // the name of the objects' type
}

func tableOf(o *codegen.Object) ([]field, error) {
	var all []field
	for _, f := range o.Fields {
		g := field{Field: f}
		g.Waits = f.IsResolver || f.IsMethod() && (f.MethodHasContext || !f.NoErr || f.VOkFunc || len(f.Args) > 0)
		if f.TypeReference.Definition.IsCompositeType() && !strings.HasPrefix(f.Name, "__") {
			if f.HasDirectives() || f.HasHaser || f.IsBatch() || f.IsMap() {
				return nil, fmt.Errorf("%s.%s: the planned executor knows no directives, batches or maps on fields with objects", o.Name, f.Name)
			}
			s, err := spreadOf(f.TypeReference)
			if err != nil {
				return nil, fmt.Errorf("%s.%s: %w", o.Name, f.Name, err)
			}
			g.Spread = s
		} else if !g.Waits && !f.HasDirectives() && !f.HasHaser && !f.IsMap() {
			g.Append = appendFunc(f.TypeReference)
			g.Text = g.Append != nil && isText(f.TypeReference.GO)
			if f.IsMethod() {
				g.Method = appendMethod(o.Reference(), "Append"+f.GoFieldName)
			}
		}
		all = append(all, g)
	}
	return all, nil
}

func spreadOf(t *config.TypeReference) (spread, error) {
	s := spread{Slice: t.IsSlice(), Of: t.Definition.Name}
	if s.Slice {
		t = t.Elem()
	}
	if t.IsSlice() || t.GQL.Elem != nil || t.IsPtrToPtr() || t.IsPtrToIntf() {
		return s, fmt.Errorf("the planned executor knows no %s", t.GO)
	}
	s.Nilable = t.IsNilable()
	s.Address = !s.Nilable
	if s.Nilable && !t.IsPtr() && t.Definition.Kind == ast.Object {
		return s, fmt.Errorf("the planned executor knows no %s", t.GO)
	}
	return s, nil
}

// appendFunc returns the function AppendX that stands beside the marshaler MarshalX of a leaf.
func appendFunc(t *config.TypeReference) *types.Func {
	if t.Marshaler == nil || t.IsContext || t.IsSlice() || t.IsPtrToSlice() || t.IsPtrToPtr() || t.HasEnumValues() || t.IsTargetNilable() {
		return nil
	}
	name, ok := strings.CutPrefix(t.Marshaler.Name(), "Marshal")
	if !ok {
		return nil
	}
	f, _ := t.Marshaler.Pkg().Scope().Lookup("Append" + name).(*types.Func)
	return f
}

// appendMethod returns the name if the type has a method func([]byte) []byte of that name.
func appendMethod(t types.Type, name string) string {
	m, _, _ := types.LookupFieldOrMethod(t, true, nil, name)
	bytes := types.NewSlice(types.Typ[types.Byte])
	want := types.NewSignatureType(nil, nil, nil, types.NewTuple(types.NewVar(0, nil, "", bytes)), types.NewTuple(types.NewVar(0, nil, "", bytes)), false)
	if f, ok := m.(*types.Func); ok && types.Identical(f.Signature(), want) {
		return name
	}
	return ""
}

// isText reports whether values of the type are text, for the limit of a response.
func isText(t types.Type) bool {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Kind() == types.String
}
