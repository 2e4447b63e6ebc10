package config

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

// Help describes the flags of a command for a terminal, first its own, then
// every setting.
func Help(flags *flag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *flag.Flag) {
		if slices.ContainsFunc(settings(), func(s setting) bool { return s.flag() == f.Name }) {
			return
		}
		if b.Len() == 0 {
			b.WriteString("Flags:\n")
		}
		value, about := flag.UnquoteUsage(f)
		fmt.Fprintf(&b, "  %s\n      %s\n", strings.TrimSpace("--"+f.Name+" "+value), about)
	})
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	b.WriteString("Settings, as environment variables or flags (BACKPLANE_LISTEN=:80 is --listen=:80; the flag wins):\n")
	for _, s := range settings() {
		fmt.Fprintf(&b, "  %s\n      %s\n", s.variable(), strings.ReplaceAll(s.described(), "`", ""))
	}
	return b.String()
}

// described is the meaning of the setting with its default.
func (s setting) described() string {
	if s.fallback == "" {
		return s.about
	}
	return s.about + " (default `" + s.fallback + "`)"
}

// Table describes every setting as a table in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	for _, s := range settings() {
		fallback := "none"
		if s.fallback != "" {
			fallback = "`" + s.fallback + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.variable(), fallback, strings.ReplaceAll(s.about, "|", `\|`))
	}
	return b.String()
}
