package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/backplane-dev/backplane/internal/config"
)

// settingMark is the annotation of a flag that is a setting.
const settingMark = "backplane_setting"

// settingFlag collects the value of a setting; package config checks it.
type settingFlag struct {
	name  string
	given map[string]string
}

func (f settingFlag) String() string { return f.given[f.name] }

func (f settingFlag) Set(value string) error {
	f.given[f.name] = value
	return nil
}

func (settingFlag) Type() string { return "value" }

// addSettings adds a flag for each setting.
func (c *commandLine) addSettings(flags *pflag.FlagSet) {
	for _, s := range config.Settings() {
		f := flags.VarPF(settingFlag{s.Flag(), c.settings}, s.Flag(), "", strings.ReplaceAll(s.Meaning, "`", ""))
		f.Annotations = map[string][]string{settingMark: {"yes"}}
	}
}

func isSetting(f *pflag.Flag) bool { return f.Annotations[settingMark] != nil }

// normalizeArgs puts the default command in front if the arguments begin with a
// flag, and writes -name as --name for flags of several letters: both are
// accepted, but cobra reads the first as one-letter flags.
func normalizeArgs(root *cobra.Command, args []string) []string {
	if len(args) == 0 {
		return []string{"serve"}
	}
	switch args[0] {
	case "-h", "-help", "--help":
		return []string{"help"}
	case "-version", "--version":
		return []string{"version"}
	case cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return args
	}
	if strings.HasPrefix(args[0], "-") {
		args = append([]string{"serve"}, args...)
	}
	takesValue := flagNames(root)
	var out []string
	for i := 0; i < len(args); i++ {
		name, _, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		value, known := takesValue[name]
		switch {
		case args[i] == "--":
			return append(out, args[i:]...)
		case !strings.HasPrefix(args[i], "-") || !known || len(name) == 1:
			out = append(out, args[i])
			continue
		}
		out = append(out, "--"+strings.TrimLeft(args[i], "-"))
		if value && !inline && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// flagNames returns the names of the flags of all commands, and whether each
// takes a value.
func flagNames(root *cobra.Command) map[string]bool {
	names := map[string]bool{"help": false}
	add := func(f *pflag.Flag) { names[f.Name] = f.NoOptDefVal == "" }
	for _, cmd := range append(root.Commands(), root) {
		cmd.Flags().VisitAll(add)
		cmd.PersistentFlags().VisitAll(add)
	}
	return names
}
