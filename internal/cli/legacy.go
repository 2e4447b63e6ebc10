package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/page"
)

func (c *commandLine) legacyCommand() *cobra.Command {
	x := &legacyListing{commandLine: c}
	cmd := c.addJSONFlag(&cobra.Command{
		Use:   "legacy",
		Short: "list which clients still call the legacy REST routes",
		Long: "Shows each route with the GraphQL operation that takes its place, its clients (API keys, or what programs name as User-Agent), how\n" +
			"often they called it, and when last. Paths that are not served are marked as unknown, and parameters that are passed over follow a\n" +
			"question mark. A running server stores its counts every few seconds.",
		Args: atMost(0),
		RunE: c.withToolbox(x.run),
	})
	cmd.Flags().BoolVar(&x.daily, "daily", false, "the calls of each route on each day, of all clients, for the last 90 days")
	cmd.Flags().StringVar(&x.since, "since", "", "only clients that have called since `TIME`, or days from then on: RFC 3339, or how long ago, such as 24h")
	return cmd
}

// legacyListing lists the usage of legacy REST routes.
type legacyListing struct {
	*commandLine
	daily bool
	since string
}

func (x *legacyListing) run(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	since, err := parseSince(x.since, tools.DB.Clock().Now())
	if err != nil {
		return err
	}
	operations, err := app.LegacyOperations(env)
	if err != nil {
		return err
	}
	operationOf := func(route string) any {
		plain, _, _ := strings.Cut(route, "?")
		if name := operations[plain]; name != "" {
			return name
		}
		return absent("-")
	}
	if x.daily {
		return x.listDays(ctx, env, tools, since, operationOf)
	}
	l := x.newListing(env.Out, "route", "graphql", "client", "calls", "since", "last seen")
	err = eachItem(func(args page.Args) (page.Page[*legacy.Usage], error) { return tools.DB.LegacyUsage().List(ctx, args) }, func(u *legacy.Usage) error {
		if u.LastSeenAt.Before(since) {
			return nil
		}
		return l.add(u.Route, operationOf(u.Route), u.Client, u.Calls, u.FirstSeenAt.Format(time.DateOnly), u.LastSeenAt)
	})
	if err != nil {
		return err
	}
	return l.flush()
}

func (x *legacyListing) listDays(ctx context.Context, env app.Env, tools *app.Toolbox, since time.Time, operationOf func(string) any) error {
	days, err := tools.DB.LegacyUsage().Days(ctx, since)
	if err != nil {
		return err
	}
	l := x.newListing(env.Out, "day", "route", "graphql", "calls")
	for _, d := range days {
		if err := l.add(d.Day, d.Route, operationOf(d.Route), d.Calls); err != nil {
			return err
		}
	}
	return l.flush()
}
