package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

func (c *commandLine) servicesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "services [NAME]",
		Short: "list services and their instances, and change them",
		Long: "Lists the services, or the instances of the service NAME. It works on the database, without a running server. Changes are events, as those of\n" +
			"the API are, but without an actor. Running servers apply them within a second.",
		Args: atMost(1),
		RunE: c.withToolbox(c.listServicesOrInstances),
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "list the services (the default)", Args: atMost(0), RunE: c.withToolbox(c.listServicesOrInstances)},
		&cobra.Command{Use: "show NAME", Short: "list the instances of a service, with their last health checks", Args: exactly(1), RunE: c.withToolbox(c.listServicesOrInstances)},
		c.drainCommand(), c.undrainCommand(), c.maintenanceCommand(), c.weightCommand(), c.metadataCommand(), c.strategyCommand(), c.paymentProviderCommand(),
	)
	return c.addJSONFlag(cmd)
}

func (c *commandLine) listServicesOrInstances(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
	d, err := tools.LoadDirectory(ctx, env)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return c.listServices(env.Out, d.Services(), d)
	}
	return c.showService(ctx, env.Out, tools, d, args[0])
}

func (c *commandLine) listServices(out io.Writer, services []*registry.Service, d *registry.Directory) error {
	l := c.newListing(out, "service", "health", "in use", "instances", "strategy", "payment provider", "description")
	for _, s := range services {
		health, _ := d.Health(s.ID)
		if err := l.add(s.Name, health, len(d.Set(s.Name).Instances), len(d.Instances(s.ID)), s.Strategy, s.PaymentProvider, s.Description); err != nil {
			return err
		}
	}
	return l.flush()
}

func (c *commandLine) showService(ctx context.Context, out io.Writer, tools *app.Toolbox, d *registry.Directory, name string) error {
	s := d.Service(name)
	if s == nil {
		return noService(name)
	}
	if health, degraded := d.Health(s.ID); degraded != nil && !c.json {
		fmt.Fprintf(out, "%s is %s since %s: %s, %d instances pass their health checks\n\n", name, health, degraded.Since.Format(time.RFC3339), degraded.Reason, degraded.RealHealthy)
	}
	return c.listInstances(ctx, out, tools, d.Instances(s.ID))
}

func noService(name string) error {
	return fmt.Errorf("there is no service %q; backplane services lists all", name)
}

func (c *commandLine) listInstances(ctx context.Context, out io.Writer, tools *app.Toolbox, instances []*registry.Instance) error {
	leases, err := tools.DB.Registry().Leases(ctx, instanceIDs(instances))
	if err != nil {
		return err
	}
	l := c.newListing(out, "instance", "status", "weight", "url", "metadata", "last seen", "reason", "checked at", "check passed", "check ms", "check output")
	for _, i := range instances {
		lease := leases[i.ID]
		row := []any{i.InstanceID, i.Status, i.Weight, i.URL, metadataCell(i.Metadata), lease.SeenAt, i.StatusReason}
		if err := l.add(append(row, checkCells(lease.Check)...)...); err != nil {
			return err
		}
	}
	return l.flush()
}

// checkCells returns the columns of the last check.
func checkCells(check *registry.CheckReport) []any {
	if check == nil {
		return []any{absent("-"), absent("-"), absent("-"), absent("-")}
	}
	return []any{check.At, check.Passed, check.Took.Milliseconds(), check.Output}
}

// metadataCell is metadata in a column: an object in JSON, and NAME=VALUE in a table.
type metadataCell map[string]string

func (m metadataCell) String() string {
	pairs := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		pairs = append(pairs, name+"="+m[name])
	}
	return strings.Join(pairs, ",")
}

func instanceIDs(instances []*registry.Instance) []uid.Instance {
	ids := make([]uid.Instance, len(instances))
	for n, i := range instances {
		ids[n] = i.ID
	}
	return ids
}
