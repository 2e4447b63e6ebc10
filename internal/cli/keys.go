package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
)

func (c *commandLine) keysCommand() *cobra.Command {
	list := c.withToolbox(listSigningKeys)
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "list or rotate the keys that sign access tokens",
		Long:  "A new key is published a minute before it signs; the old one stays published until the last token that it signed has expired.",
		Args:  unknownVerb("list and rotate"),
		RunE:  list,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "list the signing keys (the default)", Args: atMost(0), RunE: list},
		&cobra.Command{Use: "rotate", Short: "create a new signing key", Args: atMost(0), RunE: c.withToolbox(rotateSigningKey)},
	)
	return cmd
}

// unknownVerb refuses arguments of a command that has subcommands, its verbs.
func unknownVerb(verbs string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return fmt.Errorf("%s has no command %q; it has %s", cmd.Name(), args[0], verbs)
	}
}

func listSigningKeys(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	keys, err := tools.DB.Sessions().SigningKeys(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(env.Out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "key\tcreated\tsigns from\n")
	for _, k := range keys {
		fmt.Fprintf(w, "%s\t%s\t%s\n", k.ID, k.CreatedAt.Format(time.RFC3339), k.SignsAt.Format(time.RFC3339))
	}
	return w.Flush()
}

func rotateSigningKey(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	key, err := tools.Sessions.RotateSigningKey(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Out, "key %s signs from %s on\n", key.ID, key.SignsAt.Format(time.RFC3339))
	return err
}
