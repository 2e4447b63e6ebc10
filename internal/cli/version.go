package cli

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker when a release is built.
var version = ""

func (c *commandLine) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "print the version",
		Long:        "Prints the version and the Go release that it was built with.",
		Annotations: withoutSettings,
		Args:        atMost(0),
		RunE: func(*cobra.Command, []string) error {
			v, goVersion := version, "an unknown Go release"
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
				if v == "" {
					v = info.Main.Version
				}
			}
			_, err := fmt.Fprintf(c.process.Out, "backplane %s, built with %s\n", v, goVersion)
			return err
		},
	}
}
