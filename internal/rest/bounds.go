package rest

import (
	"regexp"
	"strconv"
	"strings"
)

// Phrases of descriptions that bound a text, a number or a list.
var (
	textRange = regexp.MustCompile(`\b([\d,]+) to ([\d,]+) (?:[\w-]+ )*?(?:characters|letters)\b`)
	textLimit = regexp.MustCompile(`\b(?:up to|at most) ([\d,]+) (?:[\w-]+ )*?characters\b`)
	textFloor = regexp.MustCompile(`\b([\d,]+) characters or more\b`)
	numRange  = regexp.MustCompile(`\b([\d,]+) to ([\d,]+)\b`)
	listRange = regexp.MustCompile(`\b([\d,]+) to ([\d,]+) (?:lines|ids)\b`)
	listLimit = regexp.MustCompile(`\bat most ([\d,]+)\b`)
)

// withBounds adds the bounds that a description of an input names to its schema: of the length of
// a text or a list, of a whole number. They are read from the description, so that the two never differ.
func withBounds(schema object, about string) object {
	switch typeName(schema) {
	case "string":
		if m := textRange.FindStringSubmatch(about); m != nil {
			schema["minLength"], schema["maxLength"] = boundOf(m[1]), boundOf(m[2])
		} else if m := textLimit.FindStringSubmatch(about); m != nil {
			schema["maxLength"] = boundOf(m[1])
		} else if m := textFloor.FindStringSubmatch(about); m != nil {
			schema["minLength"] = boundOf(m[1])
		}
	case "array":
		if m := listRange.FindStringSubmatch(about); m != nil {
			schema["minItems"], schema["maxItems"] = boundOf(m[1]), boundOf(m[2])
		} else if m := listLimit.FindStringSubmatch(about); m != nil {
			schema["maxItems"] = boundOf(m[1])
		}
	case "integer":
		if m := numRange.FindStringSubmatch(about); m != nil {
			schema["minimum"], schema["maximum"] = boundOf(m[1]), boundOf(m[2])
		}
	}
	return schema
}

// typeName returns the type of a schema besides null, empty if it has several or none.
func typeName(schema object) string {
	switch t := schema["type"].(type) {
	case string:
		return t
	case []any:
		if len(t) == 2 && t[1] == "null" {
			name, _ := t[0].(string)
			return name
		}
	}
	return ""
}

func boundOf(text string) int {
	n, _ := strconv.Atoi(strings.ReplaceAll(text, ",", "")) // digits
	return n
}
