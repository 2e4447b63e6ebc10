package rest

import (
	"slices"
	"strings"
	"unicode"

	"github.com/vektah/gqlparser/v2/ast"
)

// The ends of the values by which a list is sorted.
const (
	ascending  = "_ASC"
	descending = "_DESC"
)

// orderNames returns the names by which clients sort a list: createdAt for CREATED_AT_ASC, and
// -createdAt for CREATED_AT_DESC. It is nil for a type that is no order.
func orderNames(def *ast.Definition) (names []string) {
	if def == nil || def.Kind != ast.Enum {
		return nil
	}
	for _, v := range def.EnumValues {
		if key, ok := strings.CutSuffix(v.Name, ascending); ok {
			names = append(names, camelCase(key))
		} else if key, ok := strings.CutSuffix(v.Name, descending); ok {
			names = append(names, "-"+camelCase(key))
		} else {
			return nil
		}
	}
	return names
}

// camelCase converts a name such as CREATED_AT.
func camelCase(name string) string {
	var b strings.Builder
	upper := false
	for _, r := range strings.ToLower(name) {
		switch {
		case r == '_':
			upper = true
		case upper:
			b.WriteRune(unicode.ToUpper(r))
			upper = false
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// parseOrder returns the value of the schema for what a client sorts by: a name of orderNames or
// one that the operation gives besides, in any case and with underscores or not, or the value itself.
func (b *boundRequest) parseOrder(p *param, parameter, text string) string {
	values := p.Definition.EnumValues
	if values.ForName(text) != nil {
		return text
	}
	name, falls := strings.CutPrefix(strings.TrimLeft(text, "+ "), "-")
	for _, o := range p.from.Orders {
		if sameOrder(o.Name, name) {
			name = o.Value
		}
	}
	for i, known := range p.orders {
		key, down := strings.CutPrefix(known, "-")
		if down == falls && sameOrder(key, name) {
			return values[i].Name
		}
	}
	b.addParameterViolationf(parameter, "%s must be one of %s.", parameter, strings.Join(p.orders, ", "))
	return values[0].Name
}

func sameOrder(a, b string) bool {
	plain := func(s string) string { return strings.ReplaceAll(s, "_", "") }
	return strings.EqualFold(plain(a), plain(b))
}

// describeOrders says by which names a list is sorted.
func (p *param) describeOrders() string {
	var also strings.Builder
	for _, o := range p.from.Orders {
		also.WriteString("; `" + o.Name + "` stands for `" + o.Value + "`")
	}
	return "One of `" + strings.Join(p.orders, "`, `") + "`, where `-` means from the highest on" + also.String() +
		". Values of GraphQL such as `" + p.Definition.EnumValues[0].Name + "` are taken, too."
}

// orderSchema is the schema of a parameter that sorts.
func (p *param) orderSchema() object {
	values := []any{}
	for _, name := range p.orders {
		values = append(values, name)
	}
	schema := object{"type": "string", "examples": values[:1]}
	if def := p.DefaultValue; def != nil {
		if i := slices.IndexFunc(p.Definition.EnumValues, func(v *ast.EnumValueDefinition) bool { return v.Name == def.Raw }); i >= 0 {
			schema["default"] = values[i]
		}
	}
	return schema
}
