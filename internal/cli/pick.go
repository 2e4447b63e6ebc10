package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/registry"
)

// pickOptions are the flags of pick.
type pickOptions struct {
	strategy, key string
	count         int
}

func (c *commandLine) pickCommand() *cobra.Command {
	var opts pickOptions
	cmd := &cobra.Command{
		Use:   "pick NAME",
		Short: "pick an instance of the service NAME, and print its URL",
		Long:  "Picks as a node would that has just started. It changes nothing, and reports no outcome.",
		Args:  atMost(1),
		PreRunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || opts.count < 1 {
				return usagef("pick needs the name of a service, and --n of 1 or more; see backplane pick --help")
			}
			return nil
		},
		RunE: c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
			d, err := tools.LoadDirectory(ctx, env)
			if err != nil {
				return err
			}
			return c.printPicks(env.Out, d.Set(args[0]), opts)
		}),
	}
	cmd.Flags().StringVar(&opts.strategy, "strategy", "", "balancing `STRATEGY`, such as LEAST_CONNECTIONS; default: that of the service")
	cmd.Flags().StringVar(&opts.key, "key", "", "`KEY` of CONSISTENT_HASH: equal keys pick the same instance")
	cmd.Flags().IntVarP(&opts.count, "n", "n", 1, "`NUMBER` of picks")
	return c.addJSONFlag(cmd)
}

func (c *commandLine) printPicks(out io.Writer, set *registry.Set, opts pickOptions) error {
	if set == nil {
		return errors.New("there is no such service; backplane services lists all")
	}
	strategy := cmp.Or(registry.Strategy(opts.strategy), set.Service.Strategy)
	if !strategy.Known() {
		return unknownStrategy(strategy)
	}
	if strategy == registry.ConsistentHash && opts.key == "" {
		return usagef("CONSISTENT_HASH needs a --key")
	}
	pool, err := balance.NewPool(time.Now, balance.Config{})
	if err != nil {
		return err
	}
	for range opts.count {
		pick, err := pool.Pick(set, strategy, opts.key)
		if err != nil {
			return err
		}
		if c.json {
			err = writeJSONLine(out, []string{"instance", "url"}, []any{pick.Instance().InstanceID, pick.Instance().URL})
		} else {
			_, err = fmt.Fprintln(out, pick.Instance().URL)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
