package config

import (
	"fmt"
	"strings"
)

// Table describes every setting as a table in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, s := range Settings() {
		fallback := "none"
		if s.Default != "" {
			fallback = "`" + s.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Variable(), fallback, strings.ReplaceAll(s.Meaning, "|", `\|`))
	}
	return b.String()
}
