package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
)

// ServeOptions are the flags of serve.
type ServeOptions struct {
	Demo    bool // with demo data and demo services
	Migrate bool // bring the database up to date first
}

func (c *commandLine) serveCommand() *cobra.Command {
	var opts ServeOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "serve the API (the default command)",
		Long:  "Serves GraphQL at /graphql and GraphiQL at / until SIGTERM or Ctrl-C. Requests in flight then have up to BACKPLANE_LIMIT_DRAIN_TIME to finish.",
		Args:  atMost(0),
		RunE:  c.withEnv(func(ctx context.Context, env app.Env, _ []string) error { return c.serve(ctx, env, opts) }),
	}
	cmd.Flags().BoolVar(&opts.Demo, "demo", false, "fill an empty database with demo data, run demo services, and print how to sign in")
	cmd.Flags().BoolVar(&opts.Migrate, "migrate", false, "apply missing database migrations first; on SQLite that is always done")
	return cmd
}
