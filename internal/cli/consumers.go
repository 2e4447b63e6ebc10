package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
)

func (c *commandLine) consumersCommand() *cobra.Command {
	return c.addJSONFlag(&cobra.Command{
		Use:   "consumers",
		Short: "list the consumers and sinks of the event log with their offset, lag and owner",
		Long:  "Consumers work inside the server; sinks export the log to brokers. Each runs on one node at a time, its owner.",
		Args:  atMost(0),
		RunE:  c.withToolbox(c.listConsumers),
	})
}

func (c *commandLine) listConsumers(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	consumers, err := tools.ConsumerAdmin.ConsumersForOperator(ctx)
	if err != nil {
		return err
	}
	l := c.newListing(env.Out, "name", "offset", "lag", "owner", "moved", "dead letters")
	for _, s := range consumers {
		var owner any = absent("none")
		if s.Owner != nil {
			owner = *s.Owner
		}
		if err := l.add(s.Name, s.Cursor.String(), s.Lag, owner, s.MovedAt, s.DeadLetters); err != nil {
			return err
		}
	}
	return l.flush()
}
