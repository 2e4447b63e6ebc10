package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

func (c *commandLine) deadLettersCommand() *cobra.Command {
	var consumer string
	var replayed bool
	list := c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
		return c.listDeadLetters(ctx, env.Out, tools, consumer, replayed)
	})
	cmd := &cobra.Command{
		Use:   "deadletters",
		Short: "list, show or replay the events that consumers failed on",
		Long: "list shows the dead letters that wait, show ID one of them with its event and error. replay ID replays all that wait of its subject,\n" +
			"replay --consumer NAME all that wait of the consumer: the server that runs the consumer does so within seconds.",
		Args: unknownVerb("list, show and replay"),
		RunE: list,
	}
	cmd.PersistentFlags().StringVar(&consumer, "consumer", "", "`NAME` of the consumer")
	cmd.PersistentFlags().BoolVar(&replayed, "replayed", false, "list those that were replayed, too")
	cmd.Flags().BoolVar(&c.json, "json", false, jsonMeaning)
	cmd.AddCommand(
		c.addJSONFlag(&cobra.Command{Use: "list", Short: "list dead letters (the default)", Args: atMost(0), RunE: list}),
		&cobra.Command{Use: "show ID", Short: "show a dead letter with its event and error", Args: atMost(1), RunE: c.withToolbox(showDeadLetter)},
		&cobra.Command{Use: "replay [ID]", Short: "replay dead letters of a subject or a consumer", Args: atMost(1),
			RunE: c.withWritableToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
				return replayDeadLetters(ctx, env, tools, consumer, args)
			})},
	)
	return cmd
}

// listDeadLetters prints all that match, page by page.
func (c *commandLine) listDeadLetters(ctx context.Context, out io.Writer, tools *app.Toolbox, name string, replayed bool) error {
	f := consumer.DeadLetterFilter{Replayed: replayed}
	if name != "" {
		f.Consumer = &name
	}
	rows := c.newListing(out, "id", "consumer", "event", "subject", "attempts", "failed", "state", "error")
	err := eachItem(func(args page.Args) (page.Page[*consumer.DeadLetter], error) {
		return tools.DB.DeadLetters().List(ctx, f, args)
	}, func(l *consumer.DeadLetter) error {
		return rows.add(l.ID, l.Consumer, l.Event.Type, l.Event.SubjectID, l.Failure.Attempts, l.FailedAt, deadLetterState(l), l.Failure.Code)
	})
	if err != nil {
		return err
	}
	return rows.flush()
}

func deadLetterState(l *consumer.DeadLetter) string {
	switch {
	case l.ReplayedAt != nil:
		return "replayed"
	case l.RequestedAt != nil:
		return "replay requested"
	case l.Failure.Attempts == 0:
		return "held back"
	default:
		return "failed"
	}
}

func showDeadLetter(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
	if len(args) == 0 || !uid.DeadLetter(args[0]).Valid() {
		return usagef("deadletters show needs the id of a dead letter; backplane deadletters lists them")
	}
	id := uid.DeadLetter(args[0])
	found, err := tools.DB.DeadLetters().ByIDs(ctx, []uid.DeadLetter{id})
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
	_, err = fmt.Fprintf(env.Out, "id: %s\nconsumer: %s\nstate: %s\nattempts: %d\nfailed: %s\nerror: %s\nevent: %s, %s at %s\nsubject: %s, version %d\ncursor: %s\nactor: %s\ndata:\n  %s\n",
		l.ID, l.Consumer, deadLetterState(l), l.Failure.Attempts, l.FailedAt.Format(time.RFC3339), l.Failure.Detail, l.Event.ID, l.Event.Type,
		l.Event.OccurredAt.Format(time.RFC3339), l.Event.SubjectID, l.Event.SubjectVersion, l.Event.Cursor, l.Event.Actor, data)
	return err
}

func replayDeadLetters(ctx context.Context, env app.Env, tools *app.Toolbox, name string, args []string) error {
	request := consumer.ReplayRequest{Consumer: name}
	for _, id := range args {
		request.IDs = append(request.IDs, uid.DeadLetter(id))
	}
	count, err := tools.ConsumerAdmin.RequestReplayForOperator(ctx, request)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Out, "%d dead letters will be replayed\n", count)
	return err
}
