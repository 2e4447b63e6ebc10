package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

func prepareConsumers(*flag.FlagSet) func(context.Context, *app) error {
	return func(ctx context.Context, a *app) error {
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		all, err := n.overseer.Survey(ctx)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(a.out, 0, 0, 3, ' ', 0)
		fmt.Fprint(w, "name\tcursor\tbehind\towner\tmoved\tdead letters\n")
		for _, c := range all {
			owner := "nobody"
			if c.Owner != nil {
				owner = *c.Owner
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%d\n", c.Name, c.Cursor, c.Lag, owner, c.MovedAt.Format(time.RFC3339), c.DeadLetters)
		}
		return w.Flush()
	}
}

func prepareDeadLetters(flags *flag.FlagSet) func(context.Context, *app) error {
	consumer := flags.String("consumer", "", "`NAME` of the consumer")
	replayed := flags.Bool("replayed", false, "list also those that were replayed")
	return func(ctx context.Context, a *app) error {
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		id := uid.DeadLetter(a.flags.Arg(1))
		switch a.flags.Arg(0) {
		case "", "list":
			return n.listLetters(ctx, a.out, *consumer, *replayed)
		case "show":
			return n.showLetter(ctx, a.out, id)
		case "replay":
			return n.replayLetters(ctx, a.out, *consumer, id)
		default:
			return fmt.Errorf("deadletters does not know %q; it knows list, show and replay", a.flags.Arg(0))
		}
	}
}

// listLetters prints all that match, a page at a time.
func (n *node) listLetters(ctx context.Context, out io.Writer, consumer string, replayed bool) error {
	f := event.LetterFilter{Replayed: replayed}
	if consumer != "" {
		f.Consumer = &consumer
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "id\tconsumer\tevent\tsubject\tattempts\tfailed\tstate\terror\n")
	first := page.MaxSize
	for args := (page.Args{First: &first}); ; {
		p, err := n.db.Letters().List(ctx, f, args)
		if err != nil {
			return err
		}
		for _, l := range p.Items {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", l.ID, l.Consumer, l.Event.Type, l.Event.SubjectID,
				l.Failure.Attempts, l.FailedAt.Format(time.RFC3339), stateOf(l), l.Failure.Code)
		}
		if !p.HasNext {
			return w.Flush()
		}
		args.After = &p.Cursors[len(p.Cursors)-1]
	}
}

func stateOf(l *event.DeadLetter) string {
	switch {
	case l.ReplayedAt != nil:
		return "replayed"
	case l.RequestedAt != nil:
		return "to be replayed"
	case l.Failure.Attempts == 0:
		return "held back"
	default:
		return "failed"
	}
}

func (n *node) showLetter(ctx context.Context, out io.Writer, id uid.DeadLetter) error {
	if !id.Valid() {
		return errors.New("deadletters show needs the id of a dead letter; see backplane deadletters")
	}
	found, err := n.db.Letters().ByIDs(ctx, []uid.DeadLetter{id})
	if err != nil {
		return err
	}
	l := found[id]
	if l == nil {
		return fmt.Errorf("there is no dead letter %s", id)
	}
	data, err := json.MarshalIndent(l.Event.Data, "  ", "  ")
	if err != nil {
		return fmt.Errorf("show the data of %s: %w", l.Event.ID, err)
	}
	_, err = fmt.Fprintf(out, "id: %s\nconsumer: %s\nstate: %s\nattempts: %d\nfailed: %s\nerror: %s\nevent: %s, %s at %s\nsubject: %s, version %d\ncursor: %s\nactor: %s\ndata:\n  %s\n",
		l.ID, l.Consumer, stateOf(l), l.Failure.Attempts, l.FailedAt.Format(time.RFC3339), l.Failure.Detail, l.Event.ID, l.Event.Type,
		l.Event.OccurredAt.Format(time.RFC3339), l.Event.SubjectID, l.Event.SubjectVersion, l.Event.Cursor, l.Event.Actor, data)
	return err
}

func (n *node) replayLetters(ctx context.Context, out io.Writer, consumer string, id uid.DeadLetter) error {
	which := event.Replay{Consumer: consumer}
	if id != "" {
		which.IDs = []uid.DeadLetter{id}
	}
	count, err := n.overseer.Order(ctx, which)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d dead letters will be replayed\n", count)
	return err
}

// stuckAfter is for how long a reader may stay where it is, before an event as old
// as that, until it counts as stuck: far longer than any pause between two attempts.
const stuckAfter = 15 * time.Minute

// lagging says which readers of the log are stuck, what they hold back, and which
// consumers have dead letters.
func (n *node) lagging(ctx context.Context) (report []string, err error) {
	readers, err := n.overseer.Survey(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range readers {
		if r.DeadLetters > 0 {
			report = append(report, fmt.Sprintf("The consumer %s has %d dead letters; see backplane deadletters.", r.Name, r.DeadLetters))
		}
		next, err := n.log.Next(ctx, r.Cursor.Position, 1)
		if err != nil {
			return nil, err
		}
		at := now()
		if len(next) > 0 && at.Sub(next[0].OccurredAt) > stuckAfter && at.Sub(r.MovedAt) > stuckAfter {
			report = append(report, fmt.Sprintf("The reader %s has not moved past %s since %s: it is %d events behind, and holds back as many from retention.",
				r.Name, r.Cursor, r.MovedAt.Format(time.RFC3339), r.Lag))
		}
	}
	return report, nil
}
