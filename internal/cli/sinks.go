package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/export"
	"github.com/backplane-dev/backplane/internal/lease"
)

func (c *commandLine) sinksCommand() *cobra.Command {
	list := c.withToolbox(c.listSinks)
	cmd := &cobra.Command{
		Use:   "sinks",
		Short: "list the sinks with their offsets, rewind one, or forget its offset",
		Long: "A sink has an offset in the event log. Retention keeps the events after it until the sink has exported them.\n" +
			"Forget a sink that is not configured any more; one that is configured starts anew. Rewind one to a cursor, so that the events after it are exported again. No server may be exporting to it: stop those that are.",
		Args: unknownVerb("list, rewind NAME CURSOR and forget NAME"),
		RunE: list,
	}
	cmd.Flags().BoolVar(&c.json, "json", false, jsonMeaning)
	cmd.AddCommand(
		c.addJSONFlag(&cobra.Command{Use: "list", Short: "list the sinks (the default)", Args: atMost(0), RunE: list}),
		&cobra.Command{Use: "forget NAME", Short: "remove the offset of a sink", Args: atMost(1), RunE: c.withWritableToolbox(forgetSink)},
		&cobra.Command{Use: "rewind NAME CURSOR", Short: "export the events after a cursor again", Args: atMost(2), RunE: c.withWritableToolbox(rewindSink)},
	)
	return cmd
}

// sinkOffset is how far a sink has exported the log.
type sinkOffset struct {
	lease.Offset
	name    string
	address string // empty if it is not configured here
	stored  bool   // whether it has an offset
}

// sinkOffsets returns the sinks that are configured and those that have an offset.
func sinkOffsets(ctx context.Context, tools *app.Toolbox, configured []config.Sink) ([]sinkOffset, error) {
	offsets, err := tools.DB.Leases().List(ctx)
	if err != nil {
		return nil, err
	}
	var sinks []sinkOffset
	for _, s := range configured {
		sinks = append(sinks, sinkOffset{name: s.Name, address: s.Address})
	}
	for _, o := range offsets {
		name, ok := export.SinkName(o.Name)
		if !ok {
			continue
		}
		i := slices.IndexFunc(sinks, func(s sinkOffset) bool { return s.name == name })
		if i < 0 {
			i, sinks = len(sinks), append(sinks, sinkOffset{name: name})
		}
		sinks[i].Offset, sinks[i].stored = o, true
	}
	return sinks, nil
}

func (c *commandLine) listSinks(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	sinks, err := sinkOffsets(ctx, tools, env.Config.Sinks)
	if err != nil {
		return err
	}
	state, err := tools.Log.State(ctx)
	if err != nil {
		return err
	}
	if len(sinks) == 0 && !c.json {
		_, err := fmt.Fprintln(env.Out, "there are no sinks; BACKPLANE_SINKS configures them")
		return err
	}
	l := c.newListing(env.Out, "sink", "offset", "head", "lag", "moved", "owner", "broker")
	for _, s := range sinks {
		var offset, lag, moved, owner, address any = absent("none yet"), absent("-"), absent("-"), absent("none"), absent("not configured here")
		if s.stored {
			offset, lag, moved = s.Position, state.Head-s.Position, s.MovedAt
		}
		if s.ExpiresAt.After(tools.DB.Clock().Now()) {
			owner = s.Owner
		}
		if s.address != "" {
			address = s.address
		}
		if err := l.add(s.name, offset, state.Head, lag, moved, owner, address); err != nil {
			return err
		}
	}
	return l.flush()
}

func forgetSink(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
	if len(args) == 0 {
		return usagef("sinks forget needs the name of the sink; backplane sinks lists them")
	}
	forgotten, err := tools.DB.Leases().Delete(ctx, export.LeaseName(args[0]))
	if err != nil {
		return err
	}
	if !forgotten {
		return fmt.Errorf("the sink %s has no offset, or a server is exporting to it; see backplane sinks", args[0])
	}
	_, err = fmt.Fprintf(env.Out, "the offset of the sink %s is removed\n", args[0])
	return err
}

func rewindSink(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
	if len(args) < 2 {
		return usagef("sinks rewind needs the name of the sink, and the cursor of the last event that is not to be exported again; backplane sinks lists the sinks")
	}
	to, err := tools.ParseCursor(ctx, env, args[1])
	if err != nil {
		return err
	}
	state, err := tools.Log.State(ctx)
	switch {
	case err != nil:
		return err
	case to.Timeline != state.Timeline:
		return fmt.Errorf("the cursor %s is of another timeline; that of the log is %s", to, state.Timeline)
	case to.Position+1 < state.Oldest:
		return fmt.Errorf("the events after %s are not kept any more; the oldest cursor is %s", to, event.Cursor{Timeline: state.Timeline, Position: state.Oldest - 1})
	}
	rewound, err := tools.DB.Leases().Rewind(ctx, export.LeaseName(args[0]), to.Position)
	if err != nil {
		return err
	}
	if !rewound {
		return fmt.Errorf("the sink %s has no offset after %s, or a server is exporting to it; see backplane sinks", args[0], to)
	}
	_, err = fmt.Fprintf(env.Out, "the sink %s exports the events after %s again\n", args[0], to)
	return err
}
