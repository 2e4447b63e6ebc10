package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/page"
)

func (c *commandLine) legacyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "legacy",
		Short: "list which clients still call the legacy REST routes",
		Long: "Shows each route with its clients (API keys, or what programs name as User-Agent), how often they called it, and when last.\n" +
			"A running server stores its counts every few seconds.",
		Args: atMost(0),
		RunE: c.withToolbox(listLegacyUsage),
	}
}

func listLegacyUsage(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	w := tabwriter.NewWriter(env.Out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "route\tclient\tcalls\tsince\tlast seen\n")
	first := page.MaxSize
	for args := (page.Args{First: &first}); ; {
		p, err := tools.DB.LegacyUsage().List(ctx, args)
		if err != nil {
			return err
		}
		for _, u := range p.Items {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", u.Route, u.Client, u.Calls, u.FirstSeenAt.Format(time.DateOnly), u.LastSeenAt.Format(time.RFC3339))
		}
		if !p.HasNext {
			return w.Flush()
		}
		args.After = &p.Cursors[len(p.Cursors)-1]
	}
}
