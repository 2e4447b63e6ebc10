package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/session"
)

// apiKeyOptions are the flags of apikey.
type apiKeyOptions struct {
	user, name, scopes string
	life               time.Duration
}

func (c *commandLine) apiKeyCommand() *cobra.Command {
	var opts apiKeyOptions
	cmd := &cobra.Command{
		Use:   "apikey --user NAME --name NAME --scopes LIST",
		Short: "create an API key for a user, and print it once",
		Long: "The key acts for the user, within its scopes: send it as \"Authorization: Bearer KEY\". The key is all that is written to the standard\n" +
			"output: KEY=$(backplane apikey --user robot --name till --scopes orders:read).",
		Args: atMost(0),
		PreRunE: func(*cobra.Command, []string) error {
			if opts.user == "" || opts.name == "" || opts.scopes == "" {
				return usagef("apikey needs --user, --name and --scopes; see backplane apikey --help")
			}
			return nil
		},
		RunE: c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
			return c.createAPIKey(ctx, env, tools, opts)
		}),
	}
	cmd.Flags().StringVar(&opts.user, "user", "", "`NAME` of the user that the key acts for")
	cmd.Flags().StringVar(&opts.name, "name", "", "`NAME` of the key, to recognise it by")
	cmd.Flags().StringVar(&opts.scopes, "scopes", "", "comma-separated `LIST` of what the key may do: "+strings.Join(scopeNames(), ", "))
	cmd.Flags().DurationVar(&opts.life, "for", 90*24*time.Hour, "lifetime as a `DURATION`, at most 8784h (366 days)")
	return c.addJSONFlag(cmd)
}

func (c *commandLine) createAPIKey(ctx context.Context, env app.Env, tools *app.Toolbox, opts apiKeyOptions) error {
	u, err := tools.DB.Users().ByUsername(ctx, opts.user)
	if err != nil {
		return err
	}
	expires := tools.DB.Clock().Now().Add(opts.life)
	in := session.CreateAPIKeyInput{Name: opts.name, ExpiresAt: &expires}
	for s := range strings.SplitSeq(opts.scopes, ",") {
		in.Scopes = append(in.Scopes, auth.Scope(strings.TrimSpace(s)))
	}
	sessions, err := tools.OpenSessions(ctx, env)
	if err != nil {
		return err
	}
	key, secret, err := sessions.IssueAPIKey(ctx, u.ID, in)
	if err != nil {
		return err
	}
	if c.json {
		return writeJSONLine(env.Out, []string{"id", "username", "name", "scopes", "expires at", "secret"}, []any{key.ID, u.Username, key.Name, key.Scopes, key.ExpiresAt, secret})
	}
	fmt.Fprintf(c.process.ErrOut, "This is the key %s of %s. It is valid until %s and is not shown again.\n", key.ID, u.Username, key.ExpiresAt.Format(time.RFC3339))
	_, err = fmt.Fprintln(env.Out, secret)
	return err
}

// scopeNames returns all scopes, and the form of those of one service.
func scopeNames() (names []string) {
	for _, s := range auth.Scopes() {
		names = append(names, string(s))
	}
	return append(names, string(auth.ServiceScope("NAME")))
}
