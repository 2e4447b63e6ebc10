package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
)

func (c *commandLine) consumersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "consumers",
		Short: "list the consumers and sinks of the event log with their offset, lag and owner",
		Long:  "Consumers work inside the server; sinks export the log to brokers. Each runs on one node at a time, its owner.",
		Args:  atMost(0),
		RunE:  c.withToolbox(listConsumers),
	}
}

func listConsumers(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	consumers, err := tools.ConsumerAdmin.ConsumersForOperator(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(env.Out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "name\toffset\tlag\towner\tmoved\tdead letters\n")
	for _, s := range consumers {
		owner := "none"
		if s.Owner != nil {
			owner = *s.Owner
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\n", s.Name, s.Cursor, s.Lag, owner, s.MovedAt.Format(time.RFC3339), s.DeadLetters)
	}
	return w.Flush()
}
