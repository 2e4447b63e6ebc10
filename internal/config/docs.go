package config

import (
	"fmt"
	"strings"
)

// Markdown returns docs/configuration.md: every setting in its group.
func Markdown() string {
	var b strings.Builder
	b.WriteString("<!-- Written by make generate from the declarations in the code; do not edit. -->\n\n# Configuration\n\n" +
		"Each setting is an environment variable and a flag of the same meaning: `BACKPLANE_LISTEN=:80` is `--listen=:80`.\n" +
		"The flag wins. An empty variable counts as not set. A variable that starts with `BACKPLANE_` and is no setting is refused,\n" +
		"so that a misspelt one is noticed. `backplane serve --help` shows the same list, `backplane doctor` checks the rest.\n")
	for _, g := range Groups() {
		fmt.Fprintf(&b, "\n## %s\n\n| variable | default | meaning |\n|---|---|---|\n", g.Name)
		for _, s := range g.Settings {
			fallback := "none"
			if s.Default != "" {
				fallback = "`" + s.Default + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.Variable(), fallback, strings.ReplaceAll(s.Meaning, "|", `\|`))
		}
	}
	return b.String()
}
