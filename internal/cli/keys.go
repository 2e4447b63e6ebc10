package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/secrets"
)

func (c *commandLine) keysCommand() *cobra.Command {
	list := c.withToolbox(c.listSigningKeys)
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "list, rotate or revoke the keys that sign access tokens, or change the key that protects secrets",
		Long:  "A new key is published two minutes before it signs; the old one stays published until the last token that it signed has expired.",
		Args:  unknownVerb("list, rotate, revoke and rotate-master"),
		RunE:  list,
	}
	rotateMaster := &cobra.Command{
		Use: "rotate-master", Short: "change the secret key that protects the secrets in the database", Args: atMost(0),
		Long: "Needs the new key as BACKPLANE_SECRET_KEY and the old one in the file of --old. Running servers go on; those that start need\n" +
			"the new key. On SQLite a server that starts with a new key changes it by itself if the old one is in the key file.",
	}
	old := rotateMaster.Flags().String("old", "", "`FILE` with the old key, readable by its owner alone")
	rotateMaster.RunE = c.withWritableToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
		return rotateMasterKey(ctx, env, tools, *old)
	})
	cmd.Flags().BoolVar(&c.json, "json", false, jsonMeaning)
	cmd.AddCommand(
		rotateMaster,
		&cobra.Command{Use: "revoke ID", Short: "remove a signing key at once: tokens that it signed are not valid any more", Args: atMost(1), RunE: c.withWritableToolbox(revokeSigningKey)},
		c.addJSONFlag(&cobra.Command{Use: "list", Short: "list the signing keys (the default)", Args: atMost(0), RunE: list}),
		&cobra.Command{Use: "rotate", Short: "create a new signing key", Args: atMost(0), RunE: c.withWritableToolbox(rotateSigningKey)},
	)
	return cmd
}

// unknownVerb refuses arguments of a command that has subcommands, its verbs.
func unknownVerb(verbs string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return usagef("%s has no command %q; it has %s", cmd.Name(), args[0], verbs)
	}
}

func (c *commandLine) listSigningKeys(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	keys, err := tools.DB.Sessions().SigningKeys(ctx)
	if err != nil {
		return err
	}
	l := c.newListing(env.Out, "key", "created", "signs from")
	for _, k := range keys {
		if err := l.add(k.ID, k.CreatedAt, k.SignsAt); err != nil {
			return err
		}
	}
	return l.flush()
}

func rotateMasterKey(ctx context.Context, env app.Env, tools *app.Toolbox, file string) error {
	if file == "" {
		return usagef("keys rotate-master needs --old; see backplane keys rotate-master --help")
	}
	old, err := secrets.ReadMasterKey(file)
	if err != nil {
		return err
	}
	if err := app.RotateMasterKey(ctx, env, tools.DB, old); err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.Out, "the secrets are protected by the new key: start every server with it from now on")
	return err
}

func revokeSigningKey(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
	if len(args) == 0 {
		return usagef("keys revoke needs the id of a key; backplane keys lists them")
	}
	sessions, err := tools.OpenSessions(ctx, env)
	if err != nil {
		return err
	}
	key, err := sessions.RevokeSigningKey(ctx, args[0])
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Out, "key %s is revoked, and key %s signs instead: clients refresh their tokens\n", args[0], key.ID)
	return err
}

func rotateSigningKey(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	sessions, err := tools.OpenSessions(ctx, env)
	if err != nil {
		return err
	}
	key, err := sessions.RotateSigningKey(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(env.Out, "key %s signs from %s on\n", key.ID, key.SignsAt.Format(time.RFC3339))
	return err
}
