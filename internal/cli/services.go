package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

func (c *commandLine) servicesCommand() *cobra.Command {
	return c.addJSONFlag(&cobra.Command{
		Use:   "services [NAME]",
		Short: "list the services, or the instances of the service NAME",
		Long:  "Reads the registry from the database; it needs no running server.",
		Args:  atMost(1),
		RunE: c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
			d, err := tools.LoadDirectory(ctx, env)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return c.listServices(env.Out, d)
			}
			return c.listInstances(ctx, env.Out, tools, d, args[0])
		}),
	})
}

func (c *commandLine) listServices(out io.Writer, d *registry.Directory) error {
	l := c.newListing(out, "service", "health", "in use", "instances", "strategy", "description")
	for _, s := range d.Services() {
		health, _ := d.Health(s.ID)
		if err := l.add(s.Name, health, len(d.Set(s.Name).Instances), len(d.Instances(s.ID)), s.Strategy, s.Description); err != nil {
			return err
		}
	}
	return l.flush()
}

func (c *commandLine) listInstances(ctx context.Context, out io.Writer, tools *app.Toolbox, d *registry.Directory, name string) error {
	s := d.Service(name)
	if s == nil {
		return fmt.Errorf("there is no service %q; backplane services lists all", name)
	}
	instances := d.Instances(s.ID)
	if health, degraded := d.Health(s.ID); degraded != nil && !c.json {
		fmt.Fprintf(out, "%s is %s since %s: %s, %d instances pass their health checks\n\n", name, health, degraded.Since.Format(time.RFC3339), degraded.Reason, degraded.RealHealthy)
	}
	leases, err := tools.DB.Registry().Leases(ctx, instanceIDs(instances))
	if err != nil {
		return err
	}
	l := c.newListing(out, "instance", "status", "weight", "url", "last seen", "reason")
	for _, i := range instances {
		if err := l.add(i.InstanceID, i.Status, i.Weight, i.URL, leases[i.ID].SeenAt, i.StatusReason); err != nil {
			return err
		}
	}
	return l.flush()
}

func instanceIDs(instances []*registry.Instance) []uid.Instance {
	ids := make([]uid.Instance, len(instances))
	for n, i := range instances {
		ids[n] = i.ID
	}
	return ids
}
