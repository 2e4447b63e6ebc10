package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/validate"
)

const reasonMeaning = "`TEXT` that says why, up to 200 characters"

func (c *commandLine) drainCommand() *cobra.Command {
	var reason string
	cmd := c.changeInstanceCommand("drain SERVICE INSTANCE", "take an instance out of use until its next start; calls under way go on", 2,
		func(ctx context.Context, r *registry.Registrar, _ *registry.Instance, args []string) (*registry.Instance, error) {
			return r.Drain(ctx, claim.None, args[0], args[1], 0, reason)
		})
	cmd.Flags().StringVar(&reason, "reason", "", reasonMeaning)
	return cmd
}

func (c *commandLine) undrainCommand() *cobra.Command {
	return c.changeInstanceCommand("undrain SERVICE INSTANCE", "end the drain of an instance", 2,
		func(ctx context.Context, r *registry.Registrar, i *registry.Instance, args []string) (*registry.Instance, error) {
			if i.Mode == registry.Maintenance {
				return nil, fmt.Errorf("%s is not drained but in maintenance; backplane services maintenance %s %s off ends that", args[1], args[0], args[1])
			}
			return r.SetMaintenance(ctx, claim.None, args[0], args[1], false, "")
		})
}

func (c *commandLine) maintenanceCommand() *cobra.Command {
	var reason string
	cmd := c.changeInstanceCommand("maintenance SERVICE INSTANCE on|off", "take an instance out of use, its next starts included, or back into use", 3,
		func(ctx context.Context, r *registry.Registrar, _ *registry.Instance, args []string) (*registry.Instance, error) {
			return r.SetMaintenance(ctx, claim.None, args[0], args[1], args[2] == "on", reason)
		})
	cmd.Flags().StringVar(&reason, "reason", "", reasonMeaning)
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if args[2] != "on" && args[2] != "off" {
			return usagef("maintenance is on or off, not %q", args[2])
		}
		return nil
	}
	completeLast(cmd, 2, "on", "off")
	return cmd
}

func (c *commandLine) weightCommand() *cobra.Command {
	cmd := c.changeInstanceCommand("weight SERVICE INSTANCE WEIGHT", "set the share of the calls that an instance gets, until its next start", 3,
		func(ctx context.Context, r *registry.Registrar, _ *registry.Instance, args []string) (*registry.Instance, error) {
			weight, err := strconv.Atoi(args[2])
			if err != nil {
				return nil, err
			}
			return r.UpdateInstance(ctx, claim.None, args[0], args[1], 0, registry.InstanceChange{Weight: validate.Field[int]{Set: true, Value: weight}})
		})
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if n, err := strconv.Atoi(args[2]); err != nil || n < 1 || n > registry.MaxWeight {
			return usagef("a weight is a whole number from 1 to %d, not %q", registry.MaxWeight, args[2])
		}
		return nil
	}
	return cmd
}

func (c *commandLine) metadataCommand() *cobra.Command {
	cmd := c.changeInstanceCommand("metadata SERVICE INSTANCE [NAME=VALUE…]", "replace the metadata of an instance, until its next start; without any it has none", 2,
		func(ctx context.Context, r *registry.Registrar, _ *registry.Instance, args []string) (*registry.Instance, error) {
			metadata := map[string]string{}
			for _, pair := range args[2:] {
				name, value, _ := strings.Cut(pair, "=")
				metadata[name] = value
			}
			return r.UpdateInstance(ctx, claim.None, args[0], args[1], 0, registry.InstanceChange{Metadata: validate.Field[map[string]string]{Set: true, Value: metadata}})
		})
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return missingArgument(cmd)
		}
		for _, pair := range args[2:] {
			if name, _, ok := strings.Cut(pair, "="); !ok || name == "" {
				return usagef("metadata is NAME=VALUE, not %q", pair)
			}
		}
		return nil
	}
	return cmd
}

func (c *commandLine) strategyCommand() *cobra.Command {
	names := make([]string, 0, len(registry.Strategies()))
	for _, s := range registry.Strategies() {
		names = append(names, string(s))
	}
	cmd := &cobra.Command{
		Use: "strategy SERVICE STRATEGY", Short: "set how the calls of a service are spread: " + strings.Join(names, ", "), Args: exactly(2),
		PreRunE: func(_ *cobra.Command, args []string) error {
			if s := registry.Strategy(args[1]); !s.Known() {
				return unknownStrategy(s)
			}
			return nil
		},
		RunE: c.withToolbox(c.setStrategy),
	}
	completeLast(cmd, 1, names...)
	return cmd
}

// unknownStrategy is the mistake of a strategy that there is not.
func unknownStrategy(s registry.Strategy) error { return usagef("%s", fault.From(s.Check()).Message) }

func (c *commandLine) setStrategy(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
	return c.changeService(ctx, env, tools, args[0], registry.ServiceChange{Strategy: validate.Of(registry.Strategy(args[1]))})
}

func (c *commandLine) paymentProviderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "payment-provider SERVICE on|off", Short: "say whether payments may be asked of a service", Args: exactly(2),
		PreRunE: func(_ *cobra.Command, args []string) error {
			if args[1] != "on" && args[1] != "off" {
				return usagef("a service is a payment provider or not: on or off, not %q", args[1])
			}
			return nil
		},
		RunE: c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
			return c.changeService(ctx, env, tools, args[0], registry.ServiceChange{PaymentProvider: validate.Of(args[1] == "on")})
		}),
	}
	completeLast(cmd, 1, "on", "off")
	return cmd
}

// changeService changes the service of the name, and prints it as it is listed.
func (c *commandLine) changeService(ctx context.Context, env app.Env, tools *app.Toolbox, name string, change registry.ServiceChange) error {
	d, err := tools.LoadDirectory(ctx, env)
	if err != nil {
		return err
	}
	s := d.Service(name)
	if s == nil {
		return noService(name)
	}
	if _, err := newRegistrar(tools, d).Update(asOperator(ctx), claim.None, s.ID, nil, change); err != nil {
		return err
	}
	return c.listServices(env.Out, []*registry.Service{d.Service(name)}, d)
}

// instanceChange changes the instance, which the first two arguments name.
type instanceChange func(ctx context.Context, r *registry.Registrar, i *registry.Instance, args []string) (*registry.Instance, error)

// changeInstanceCommand returns a command with as many arguments that changes an instance, and prints it as it is listed.
func (c *commandLine) changeInstanceCommand(use, short string, arguments int, change instanceChange) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: exactly(arguments), RunE: c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
		d, err := tools.LoadDirectory(ctx, env)
		if err != nil {
			return err
		}
		if d.Service(args[0]) == nil {
			return noService(args[0])
		}
		i := d.Instance(args[0], args[1])
		if i == nil {
			return fmt.Errorf("there is no instance %q of %s; backplane services show %s lists all", args[1], args[0], args[0])
		}
		if i, err = change(asOperator(ctx), newRegistrar(tools, d), i, args); err != nil {
			return err
		}
		return c.listInstances(ctx, env.Out, tools, []*registry.Instance{i})
	})}
}

func newRegistrar(tools *app.Toolbox, d *registry.Directory) *registry.Registrar {
	return registry.NewRegistrar(tools.DB.Registry(), d, tools.DB.Clock().Now)
}

// exactly accepts n arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return missingArgument(cmd)
		}
		return atMost(n)(cmd, args)
	}
}

func missingArgument(cmd *cobra.Command) error {
	return usagef("%s: an argument is missing; see %s --help", cmd.Parent().CommandPath()+" "+cmd.Use, cmd.CommandPath())
}

// completeLast completes the argument behind so many others with the words.
func completeLast(cmd *cobra.Command, others int, words ...string) {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) != others {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}
