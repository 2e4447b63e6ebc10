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
			goVersion := "an unknown Go release"
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
			}
			_, err := fmt.Fprintf(c.process.Out, "backplane %s, built with %s\n", programVersion(), goVersion)
			return err
		},
	}
}

// programVersion returns the version of the release, or what Go knows of the build.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
