package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/notify"
)

// openSinks builds the exporter of each sink. Nothing connects before it runs,
// so that a broker that is down keeps nobody from serving.
func (n *node) openSinks(a *app, hub *event.Hub) ([]*event.Exporter, error) {
	notify.LogRedis(a.log)
	var exporters []*event.Exporter
	for _, cfg := range a.cfg.Sinks {
		sink, err := openSink(a, cfg)
		if err != nil {
			return nil, fmt.Errorf("sink %s (BACKPLANE_SINKS): %w", cfg.Name, err)
		}
		x, err := event.NewExporter(cfg.Name, n.log, hub, n.db.Offsets(), sink, a.log, event.ExporterConfig{Holder: n.holder, FromHead: cfg.FromHead})
		if err != nil {
			return nil, err
		}
		exporters = append(exporters, x)
	}
	return exporters, nil
}

func openSink(a *app, cfg config.Sink) (event.Sink, error) {
	switch url := string(cfg.URL); cfg.Kind {
	case config.RedisSink:
		return notify.NewRedisSink(url, notify.RedisSinkConfig{Source: cfg.Source, Stream: cfg.Stream, MaxLen: cfg.MaxLen})
	case config.RabbitMQSink:
		return notify.NewRabbitMQSink(url, notify.RabbitMQSinkConfig{Source: cfg.Source, Exchange: cfg.Exchange, Mandatory: cfg.Mandatory}, a.log.With("sink", cfg.Name))
	case config.NATSSink:
		return notify.NewNATSSink(url, notify.NATSSinkConfig{Source: cfg.Source, Stream: cfg.Stream, Subject: cfg.Subject})
	}
	return nil, fmt.Errorf("there is no kind of sink %q", cfg.Kind)
}

// nodeName tells people which process it is that owns something.
func nodeName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

func prepareSinks(*flag.FlagSet) func(context.Context, *app) error {
	return func(ctx context.Context, a *app) error {
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		switch verb, name := a.flags.Arg(0), a.flags.Arg(1); {
		case (verb == "" || verb == "list") && name == "":
			return n.listSinks(ctx, a)
		case verb == "forget" && name != "":
			return n.forgetSink(ctx, a, name)
		case verb == "forget":
			return errors.New("sinks forget needs the name of the sink; see backplane sinks")
		default:
			return fmt.Errorf("sinks does not know %q; it knows list and forget NAME", verb)
		}
	}
}

// sinkPlace is how far a sink is.
type sinkPlace struct {
	event.Offset
	name    string
	address string // empty if it is not configured here
	known   bool   // whether it has a place
}

// sinkPlaces returns the sinks that are configured and those that have a place.
func (n *node) sinkPlaces(ctx context.Context, configured []config.Sink) ([]sinkPlace, error) {
	offsets, err := n.db.Offsets().List(ctx)
	if err != nil {
		return nil, err
	}
	var all []sinkPlace
	for _, s := range configured {
		all = append(all, sinkPlace{name: s.Name, address: s.Address})
	}
	for _, o := range offsets {
		name, ok := event.SinkOf(o.Name)
		if !ok {
			continue
		}
		i := slices.IndexFunc(all, func(p sinkPlace) bool { return p.name == name })
		if i < 0 {
			i, all = len(all), append(all, sinkPlace{name: name})
		}
		all[i].Offset, all[i].known = o, true
	}
	return all, nil
}

// strangeSinks says which places are kept for sinks that are not configured.
func (n *node) strangeSinks(ctx context.Context, configured []config.Sink) (report []string, err error) {
	all, err := n.sinkPlaces(ctx, configured)
	for _, p := range all {
		if p.address == "" {
			report = append(report, fmt.Sprintf("the sink %s has a place in the event log, %d, but BACKPLANE_SINKS does not name it: "+
				"no event behind its place is ever removed. If it is gone for good, run backplane sinks forget %s.", p.name, p.Position, p.name))
		}
	}
	return report, err
}

func (n *node) listSinks(ctx context.Context, a *app) error {
	all, err := n.sinkPlaces(ctx, a.cfg.Sinks)
	if err != nil {
		return err
	}
	state, err := n.log.State(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(a.out, "there are no sinks; BACKPLANE_SINKS configures them")
		return err
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "sink\tplace\thead\tlag\tmoved\towner\tbroker\n")
	for _, p := range all {
		place, lag, moved, owner := "none yet", "-", "-", "nobody"
		if p.known {
			place, lag, moved = fmt.Sprint(p.Position), fmt.Sprint(state.Head-p.Position), p.Moved.Format(time.RFC3339)
		}
		if p.Expires.After(time.Now()) {
			owner = p.Holder
		}
		address := p.address
		if address == "" {
			address = "not configured here"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", p.name, place, state.Head, lag, moved, owner, address)
	}
	return w.Flush()
}

func (n *node) forgetSink(ctx context.Context, a *app, name string) error {
	forgotten, err := n.db.Offsets().Forget(ctx, event.SinkReader(name))
	if err != nil {
		return err
	}
	if !forgotten {
		return fmt.Errorf("the sink %s has no place, or a server exports to it now; see backplane sinks", name)
	}
	_, err = fmt.Fprintf(a.out, "the place of the sink %s is forgotten\n", name)
	return err
}
