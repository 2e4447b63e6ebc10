package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
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
	first := page.MaxSize
	for args := (page.Args{First: &first}); ; {
		p, err := tools.DB.LegacyUsage().List(ctx, args)
		if err != nil {
			return err
		}
		for _, u := range p.Items {
			if err := l.add(u.Route, u.Client, u.Calls, u.FirstSeenAt.Format(time.DateOnly), u.LastSeenAt); err != nil {
				return err
			}
		}
		if !p.HasNext {
			return l.flush()
		}
		args.After = &p.Cursors[len(p.Cursors)-1]
	}
}
