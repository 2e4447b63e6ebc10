package cli

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/logwriter"
)

// flushTime bounds how long a stopped server waits for its output.
const flushTime = time.Second

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
		Long: "Serves GraphQL at /graphql and GraphiQL at / until SIGTERM or Ctrl-C. After SIGTERM requests are served for another BACKPLANE_STOP_DELAY, while /readyz is 503. " +
			"Requests in flight then have up to BACKPLANE_LIMIT_DRAIN_TIME to finish. A second Ctrl-C ends the server at once; SIGHUP does nothing.",
		Args: atMost(0),
		RunE: c.withEnv(func(ctx context.Context, env app.Env, _ []string) error {
			ignoreTerminal()
			flush := c.detachOutput(&env)
			defer flush()
			env.Config.HTTP.AllowLocalOrigins = opts.Demo // pages that are being written
			c.logStart(ctx, env)
			err := c.serve(ctx, env, opts)
			env.Log.InfoContext(ctx, "backplane stops", "version", programVersion(), "database", describeDatabase(env.Config.Database), "failed", err != nil)
			return err
		}),
	}
	cmd.Flags().BoolVar(&opts.Demo, "demo", false, "fill an empty database with demo data, run demo services, and print how to sign in")
	cmd.Flags().BoolVar(&opts.Migrate, "migrate", false, "apply missing database migrations first; on SQLite that is always done")
	return cmd
}

// logStart logs what starts on which database, with the settings that differ from the default.
func (c *commandLine) logStart(ctx context.Context, env app.Env) {
	var changed []any
	for _, s := range config.SettingsInForce(c.process.Environ, c.settings) {
		if s.Value != s.Default && s.Name != "DATABASE_URL" {
			changed = append(changed, slog.String(s.Variable(), s.Value))
		}
	}
	env.Log.InfoContext(ctx, "backplane starts", "version", programVersion(), "database", describeDatabase(env.Config.Database), slog.Group("settings", changed...))
}

// detachOutput puts bounded queues in front of the output and the log, so that no reader of
// theirs can stop the server. flush writes out what is queued.
func (c *commandLine) detachOutput(env *app.Env) (flush func()) {
	out := logwriter.New(c.process.Out, logwriter.DefaultLimit, nil)
	errOut := logwriter.New(c.process.ErrOut, logwriter.DefaultLimit, droppedNotice(env.Config))
	env.OutIsTerminal = isTerminal(c.process.Out)
	env.Out, env.Log, env.DroppedLogRecords = out, newLogger(env.Config, errOut), errOut.Dropped
	return func() {
		var wg sync.WaitGroup
		wg.Go(func() { out.Close(flushTime) })
		wg.Go(func() { errOut.Close(flushTime) })
		wg.Wait()
	}
}

// droppedNotice returns what makes the log record that tells of dropped ones.
func droppedNotice(cfg config.Config) func(dropped uint64) []byte {
	return func(dropped uint64) []byte {
		var record bytes.Buffer
		newLogger(cfg, &record).Warn("log records dropped: the reader of the log was too slow, or gone", slog.Uint64("dropped", dropped))
		return record.Bytes()
	}
}
