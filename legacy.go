package main

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/backplane-dev/backplane/internal/page"
)

func prepareLegacy(*flag.FlagSet) func(context.Context, *app) error {
	return func(ctx context.Context, a *app) error {
		db, err := openDatabase(ctx, a.cfg, false)
		if err != nil {
			return err
		}
		defer db.Close()
		if err := db.Ready(ctx); err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
		fmt.Fprint(w, "route\tclient\tcalls\tsince\tlast seen\n")
		args := page.Args{First: new(int)}
		*args.First = page.MaxSize
		for {
			p, err := db.LegacyUsage().List(ctx, args)
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
}
