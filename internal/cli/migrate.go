package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
)

func (c *commandLine) migrateCommand() *cobra.Command {
	var restored bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "apply missing database migrations",
		Long: "Applies the migrations that the database lacks, each in one transaction. Any number of nodes may run it at the same time: one of them migrates.\n" +
			"On SQLite every command that writes does this by itself.",
		Args: atMost(0),
		RunE: c.withEnv(func(ctx context.Context, env app.Env, _ []string) error { return migrate(ctx, env, restored) }),
	}
	cmd.Flags().BoolVar(&restored, "after-restore", false, "the database was restored from a backup: start a new event timeline, so that cursors from before are refused; run it while no server runs")
	return cmd
}

func migrate(ctx context.Context, env app.Env, restored bool) error {
	db, err := app.OpenDatabase(ctx, env, true)
	if err != nil {
		return err
	}
	if restored {
		if err := app.RenewRestoredTimeline(ctx, env, db); err != nil {
			return errors.Join(err, db.Close())
		}
		fmt.Fprintln(env.Out, "a new event timeline has begun: event cursors from before the restore are refused")
	}
	fmt.Fprintf(env.Out, "%s is up to date\n", env.Config.Database)
	return db.Close()
}
