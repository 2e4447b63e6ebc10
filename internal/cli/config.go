package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/config"
)

func (c *commandLine) configCommand() *cobra.Command {
	var changed bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "print the settings in force, and where each comes from",
		Long:  "Prints what a server would run with that is started with the same environment and flags. Secrets are not shown. It opens nothing.",
		Args:  atMost(0),
		RunE: c.withEnv(func(_ context.Context, env app.Env, _ []string) error {
			l := c.newListing(env.Out, "setting", "value", "source")
			for _, s := range config.SettingsInForce(c.process.Environ, c.settings) {
				if changed && s.Value == s.Default {
					continue
				}
				var value any = s.Value
				if s.Value == "" {
					value = absent("-")
				}
				if err := l.add(s.Variable(), value, s.Source); err != nil {
					return err
				}
			}
			return l.flush()
		}),
	}
	cmd.Flags().BoolVar(&changed, "changed", false, "only those that differ from the default")
	return c.addJSONFlag(cmd)
}
