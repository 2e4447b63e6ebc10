package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// unread stands for the log where it is not read: what was just loaded is up to date.
type unread struct{}

func (unread) Lag() time.Duration { return 0 }

func (unread) Head() event.Cursor { return event.Cursor{} }

// readDirectory returns the registry as it is stored.
func (n *node) readDirectory(ctx context.Context, a *app) (*registry.Directory, error) {
	d := registry.NewDirectory(n.db.Registry(), unread{}, now, a.log)
	return d, d.Load(ctx)
}

func prepareServices(*flag.FlagSet) func(context.Context, *app) error {
	return func(ctx context.Context, a *app) error {
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		d, err := n.readDirectory(ctx, a)
		if err != nil {
			return err
		}
		if name := a.flags.Arg(0); name != "" {
			return n.listInstances(ctx, a.out, d, name)
		}
		return listServices(a.out, d)
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

func (n *node) listInstances(ctx context.Context, out io.Writer, d *registry.Directory, name string) error {
	s := d.Service(name)
	if s == nil {
		return fmt.Errorf("there is no service %q", name)
	}
	instances := d.Instances(s.ID)
	if health, degraded := d.Health(s.ID); degraded != nil {
		fmt.Fprintf(out, "%s is %s since %s: %s, %d are known to be well\n\n", name, health, degraded.Since.Format(time.RFC3339), degraded.Reason, degraded.RealHealthy)
	}
	leases, err := n.db.Registry().Leases(ctx, idsOf(instances))
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

func idsOf(instances []*registry.Instance) []uid.Instance {
	ids := make([]uid.Instance, len(instances))
	for n, i := range instances {
		ids[n] = i.ID
	}
	return ids
}

func preparePick(flags *flag.FlagSet) func(context.Context, *app) error {
	strategy := flags.String("strategy", "", "how to choose, e.g. LEAST_CONNECTIONS; as the service says if not given")
	key := flags.String("key", "", "what belongs together, for CONSISTENT_HASH")
	count := flags.Int("n", 1, "how many picks")
	return func(ctx context.Context, a *app) error {
		if a.flags.Arg(0) == "" || *count < 1 {
			return errors.New("pick needs the name of a service, and to pick once at least; see backplane pick --help")
		}
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		d, err := n.readDirectory(ctx, a)
		if err != nil {
			return err
		}
		return pickFrom(a.out, d.Set(a.flags.Arg(0)), registry.Strategy(*strategy), *key, *count)
	}
}

func pickFrom(out io.Writer, set *registry.Set, strategy registry.Strategy, key string, count int) error {
	if set == nil {
		return errors.New("there is no such service")
	}
	strategy = cmp.Or(strategy, set.Service.Strategy)
	if !strategy.Known() {
		return fmt.Errorf("there is no strategy %q; there are %v", strategy, registry.Strategies())
	}
	if strategy == registry.ConsistentHash && key == "" {
		return errors.New("CONSISTENT_HASH needs a --key")
	}
	pool, err := balance.NewPool(time.Now, balance.Config{})
	if err != nil {
		return err
	}
	for range count {
		pick, err := pool.Pick(set, strategy, key)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, pick.Instance().URL); err != nil {
			return err
		}
	}
	return nil
}
