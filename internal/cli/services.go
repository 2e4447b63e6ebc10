package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

func (c *commandLine) servicesCommand() *cobra.Command {
	return &cobra.Command{
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
				return listServices(env.Out, d)
			}
			return listInstances(ctx, env.Out, tools, d, args[0])
		}),
	}
}

func listServices(out io.Writer, d *registry.Directory) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "service\thealth\tin use\tinstances\tstrategy\tdescription\n")
	for _, s := range d.Services() {
		health, _ := d.Health(s.ID)
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", s.Name, health, len(d.Set(s.Name).Instances), len(d.Instances(s.ID)), s.Strategy, s.Description)
	}
	return w.Flush()
}

func listInstances(ctx context.Context, out io.Writer, tools *app.Toolbox, d *registry.Directory, name string) error {
	s := d.Service(name)
	if s == nil {
		return fmt.Errorf("there is no service %q; backplane services lists all", name)
	}
	instances := d.Instances(s.ID)
	if health, degraded := d.Health(s.ID); degraded != nil {
		fmt.Fprintf(out, "%s is %s since %s: %s, %d instances pass their health checks\n\n", name, health, degraded.Since.Format(time.RFC3339), degraded.Reason, degraded.RealHealthy)
	}
	leases, err := tools.DB.Registry().Leases(ctx, instanceIDs(instances))
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "instance\tstatus\tweight\turl\tlast seen\treason\n")
	for _, i := range instances {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", i.InstanceID, i.Status, i.Weight, i.URL, leases[i.ID].SeenAt.Format(time.RFC3339), i.StatusReason)
	}
	return w.Flush()
}

func instanceIDs(instances []*registry.Instance) []uid.Instance {
	ids := make([]uid.Instance, len(instances))
	for n, i := range instances {
		ids[n] = i.ID
	}
	return ids
}
