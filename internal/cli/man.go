package cli

import (
	"fmt"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/config"
)

func (c *commandLine) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "man",
		Short:       "print the manual page",
		Long:        "Prints the manual page of all commands and settings. Install it with: backplane man > /usr/local/share/man/man1/backplane.1",
		Annotations: withoutSettings,
		Args:        atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := c.process.Out.Write(md2man.Render([]byte(manual(cmd.Root()))))
			return err
		},
	}
}

// manual returns the manual page in Markdown.
func manual(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%% BACKPLANE 1\n\n# NAME\n\nbackplane - %s\n\n# SYNOPSIS\n\n**backplane** [*COMMAND*] [*FLAGS*]\n\n# COMMANDS\n", root.Short)
	for _, cmd := range root.Commands() {
		if !cmd.IsAvailableCommand() {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n", escapeMarkdown(strings.TrimPrefix(cmd.UseLine(), "backplane ")), escapeMarkdown(cmd.Short))
		if cmd.Name() == "completion" { // its help says more, with scripts
			continue
		}
		fmt.Fprintf(&b, "\n%s\n", escapeMarkdown(cmd.Long))
		for _, sub := range cmd.Commands() {
			fmt.Fprintf(&b, "\n**%s**: %s.\n", escapeMarkdown(strings.TrimPrefix(sub.UseLine(), "backplane ")), escapeMarkdown(sub.Short))
		}
		for _, f := range ownFlags(cmd) {
			fmt.Fprintf(&b, "\n**%s**\n: %s\n", escapeMarkdown(flagSyntax(f)), escapeMarkdown(flagMeaning(f)))
		}
	}
	fmt.Fprintf(&b, "\n# ENVIRONMENT\n\n%s\n", escapeMarkdown(settingsIntro))
	for _, g := range config.Groups() {
		fmt.Fprintf(&b, "\n## %s\n", g.Name)
		for _, s := range g.Settings {
			fmt.Fprintf(&b, "\n**%s**\n: %s\n", escapeMarkdown(s.Variable()), escapeMarkdown(strings.ReplaceAll(s.Describe(), "`", "")))
		}
	}
	b.WriteString("\n# EXIT STATUS\n\n" + exitHelp + "\n")
	return b.String()
}

// escapeMarkdown returns the text such that Markdown shows it as it is.
func escapeMarkdown(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, "`", "\\`", `<`, `\<`, `[`, `\[`).Replace(text)
}
