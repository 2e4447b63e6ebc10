package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/page"
)

func (c *commandLine) legacyCommand() *cobra.Command {
	return c.addJSONFlag(&cobra.Command{
		Use:   "legacy",
		Short: "list which clients still call the legacy REST routes",
		Long: "Shows each route with its clients (API keys, or what programs name as User-Agent), how often they called it, and when last.\n" +
			"A running server stores its counts every few seconds.",
		Args: atMost(0),
		RunE: c.withToolbox(c.listLegacyUsage),
	})
}

func (c *commandLine) listLegacyUsage(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	l := c.newListing(env.Out, "route", "client", "calls", "since", "last seen")
	err := eachItem(func(args page.Args) (page.Page[*legacy.Usage], error) { return tools.DB.LegacyUsage().List(ctx, args) }, func(u *legacy.Usage) error {
		return l.add(u.Route, u.Client, u.Calls, u.FirstSeenAt.Format(time.DateOnly), u.LastSeenAt)
	})
	if err != nil {
		return err
	}
	return l.flush()
}
