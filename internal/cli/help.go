package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/backplane-dev/backplane/internal/config"
)

// settingsIntro stands above the settings in help and manual.
const settingsIntro = "Each setting is an environment variable and a flag: BACKPLANE_LISTEN=:80 is --listen=:80. The flag wins."

// printHelp prints the help of a command: what it does, its own flags, then the
// settings in groups. The help of the root lists the commands instead.
func printHelp(cmd *cobra.Command, _ []string) {
	out := cmd.OutOrStdout()
	if !cmd.HasParent() {
		printOverview(out, cmd)
		return
	}
	fmt.Fprintf(out, "%s: %s\n\nUsage:\n  %s\n", cmd.CommandPath(), cmd.Short, cmd.UseLine())
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(out, "  %s\n", sub.UseLine())
		}
	}
	if cmd.Long != "" {
		fmt.Fprintf(out, "\n%s\n", cmd.Long)
	}
	if flags := ownFlags(cmd); len(flags) > 0 {
		fmt.Fprint(out, "\nFlags:\n")
		for _, f := range flags {
			fmt.Fprintf(out, "  %s\n      %s\n", flagSyntax(f), flagMeaning(f))
		}
	}
	if readsSettings(cmd) {
		printSettings(out)
	}
}

func printOverview(out io.Writer, root *cobra.Command) {
	fmt.Fprintf(out, "Backplane is %s.\n\nUsage:\n  backplane [COMMAND] [FLAGS]\n\nCommands:\n", root.Short)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, cmd := range root.Commands() {
		if cmd.IsAvailableCommand() || cmd.Name() == "help" {
			fmt.Fprintf(w, "  %s\t%s\n", cmd.Name(), cmd.Short)
		}
	}
	_ = w.Flush() // as for all output of help
	fmt.Fprintf(out, "\nbackplane COMMAND --help says more and lists all settings.\nExit status: %s\n", exitHelp)
}

func printSettings(out io.Writer) {
	fmt.Fprintf(out, "\n%s\n", settingsIntro)
	for _, g := range config.Groups() {
		fmt.Fprintf(out, "\n%s:\n", g.Name)
		for _, s := range g.Settings {
			fmt.Fprintf(out, "  %s\n      %s\n", s.Variable(), strings.ReplaceAll(s.Describe(), "`", ""))
		}
	}
}

// noSettings is the annotation of commands that read no settings.
const noSettings = "backplane_no_settings"

var withoutSettings = map[string]string{noSettings: "yes"}

func readsSettings(cmd *cobra.Command) bool {
	for ; cmd.HasParent(); cmd = cmd.Parent() {
		if cmd.Annotations[noSettings] != "" {
			return false
		}
	}
	return true
}

// ownFlags returns the flags of a command that are not settings.
func ownFlags(cmd *cobra.Command) (flags []*pflag.Flag) {
	add := func(f *pflag.Flag) {
		if !isSetting(f) && !f.Hidden && f.Name != "help" {
			flags = append(flags, f)
		}
	}
	cmd.NonInheritedFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return flags
}

// flagSyntax returns the flag as one types it, such as "--user NAME".
func flagSyntax(f *pflag.Flag) string {
	value, _ := pflag.UnquoteUsage(f)
	return strings.TrimSpace("--" + f.Name + " " + value)
}

// flagMeaning returns what the flag does, with its default.
func flagMeaning(f *pflag.Flag) string {
	_, meaning := pflag.UnquoteUsage(f)
	if f.DefValue == "" || f.DefValue == "false" {
		return meaning
	}
	return meaning + " (default " + f.DefValue + ")"
}
