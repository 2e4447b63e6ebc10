package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

func (c *commandLine) usersCommand() *cobra.Command {
	list := c.withToolbox(c.listUsers)
	cmd := &cobra.Command{
		Use:   "users",
		Short: "list, show, create and change accounts",
		Long: "NAME is a user name, an email address or the id of a user. Changes are events, as those of the API are, but without an actor. Running\n" +
			"servers apply them within a second. A password is read from the terminal, without an echo, or is the first line of the standard input.",
		Args: unknownVerb("list, show, create, set-password, set-roles, activate and deactivate"),
		RunE: list,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "list all accounts (the default)", Args: atMost(0), RunE: list},
		&cobra.Command{Use: "show NAME", Short: "show an account, with how many sessions and API keys it has", Args: atMost(1), RunE: c.withToolbox(c.showUser)},
		c.createUserCommand(),
		c.setPasswordCommand(),
		c.changeUserCommand("set-roles NAME ROLES", "set the roles of an account: a comma-separated list of "+strings.Join(roleNames(), ", "), 2, func(args []string) user.Change {
			return user.Change{Roles: validate.Field[[]auth.Role]{Set: true, Value: parseRoles(args[1])}}
		}),
		c.changeUserCommand("deactivate NAME", "deactivate an account: it cannot sign in, and its sessions and API keys end", 1, func([]string) user.Change {
			return user.Change{Status: validate.Field[user.Status]{Set: true, Value: user.Deactivated}}
		}),
		c.changeUserCommand("activate NAME", "activate a deactivated account", 1, func([]string) user.Change {
			return user.Change{Status: validate.Field[user.Status]{Set: true, Value: user.Active}}
		}),
	)
	return c.addJSONFlag(cmd)
}

func (c *commandLine) createUserCommand() *cobra.Command {
	var email, name, roles string
	var withoutPassword bool
	cmd := &cobra.Command{Use: "create NAME", Short: "create an account, with a password that is read", Args: atMost(1)}
	cmd.Flags().StringVar(&email, "email", "", "email `ADDRESS`")
	cmd.Flags().StringVar(&name, "name", "", "display `NAME`")
	cmd.Flags().StringVar(&roles, "roles", string(auth.Customer), "comma-separated `LIST` of "+strings.Join(roleNames(), ", "))
	cmd.Flags().BoolVar(&withoutPassword, "no-password", false, "create an account that cannot sign in until it has a password, such as one for API keys")
	cmd.RunE = c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
		if len(args) == 0 {
			return usagef("users create needs the name of the account; see backplane users create --help")
		}
		var hash user.Hasher
		if !withoutPassword {
			text, err := c.readPassword(ctx)
			if err != nil {
				return err
			}
			hash = passwordHasher(env, tools, text)
		}
		p := user.Profile{Username: args[0], Name: name}
		if email != "" {
			p.Email = &email
		}
		u, err := newAccounts(tools).Create(asOperator(ctx), claim.None, p, parseRoles(roles), nil, hash)
		if err != nil {
			return err
		}
		return c.printUser(env, u)
	})
	return cmd
}

func (c *commandLine) setPasswordCommand() *cobra.Command {
	var keys bool
	cmd := &cobra.Command{Use: "set-password NAME", Short: "set the password of an account, and end its sessions", Args: atMost(1)}
	cmd.Flags().BoolVar(&keys, "revoke-api-keys", false, "revoke its API keys as well")
	cmd.RunE = c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
		u, err := findUser(ctx, tools, args)
		if err != nil {
			return err
		}
		text, err := c.readPassword(ctx)
		if err != nil {
			return err
		}
		sessions, err := tools.OpenSessions(ctx, env)
		if err != nil {
			return err
		}
		if err := sessions.ResetPassword(asOperator(ctx), claim.None, u.ID, text, keys); err != nil {
			return err
		}
		return c.printUser(env, u)
	})
	return cmd
}

// changeUserCommand returns a command that changes the account which its first argument names; it needs as many arguments.
func (c *commandLine) changeUserCommand(use, short string, arguments int, change func(args []string) user.Change) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: atMost(arguments), RunE: c.withToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
		if len(args) < arguments {
			return usagef("users %s: an argument is missing", use)
		}
		u, err := findUser(ctx, tools, args)
		if err != nil {
			return err
		}
		if u, err = newAccounts(tools).Update(asOperator(ctx), claim.None, u.ID, nil, change(args)); err != nil {
			return err
		}
		return c.printUser(env, u)
	})}
}

// asOperator returns the context of what the operator does, with all rights. Its events have no actor.
func asOperator(ctx context.Context) context.Context {
	return auth.With(ctx, &auth.Principal{Roles: []auth.Role{auth.Admin}, Credential: auth.SystemCredential()})
}

func newAccounts(tools *app.Toolbox) *user.Service {
	return user.NewService(tools.DB.Users(), nil, tools.DB.Clock().Now)
}

func passwordHasher(env app.Env, tools *app.Toolbox, text string) user.Hasher {
	return func(ctx context.Context, names []string) (user.PasswordHash, error) {
		sessions, err := tools.OpenSessions(ctx, env)
		if err != nil {
			return "", err
		}
		hash, err := sessions.HashPassword(ctx, text, names...)
		return user.PasswordHash(hash), err
	}
}

// findUser returns the account that the first argument names.
func findUser(ctx context.Context, tools *app.Toolbox, args []string) (*user.User, error) {
	if len(args) == 0 {
		return nil, usagef("this needs the name of an account; backplane users lists all")
	}
	f := user.Filter{Username: &args[0]}
	switch id := uid.User(args[0]); {
	case id.Valid():
		f = user.Filter{IDs: []uid.User{id}}
	case strings.Contains(args[0], "@"):
		f = user.Filter{Email: &args[0]}
	}
	found, err := tools.DB.Users().List(ctx, f, user.ByUsernameAsc, page.Args{})
	if err != nil {
		return nil, err
	}
	if len(found.Items) == 0 {
		return nil, fmt.Errorf("there is no account %q; backplane users lists all", args[0])
	}
	return found.Items[0], nil
}

func (c *commandLine) listUsers(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	l := c.newUserListing(env)
	err := eachItem(func(args page.Args) (page.Page[*user.User], error) {
		return tools.DB.Users().List(ctx, user.Filter{}, user.ByUsernameAsc, args)
	}, func(u *user.User) error { return l.add(userRow(u)...) })
	if err != nil {
		return err
	}
	return l.flush()
}

// printUser prints an account as it is listed.
func (c *commandLine) printUser(env app.Env, u *user.User) error {
	l := c.newUserListing(env)
	if err := l.add(userRow(u)...); err != nil {
		return err
	}
	return l.flush()
}

// newUserListing returns a listing of userRow, and of more columns.
func (c *commandLine) newUserListing(env app.Env, more ...string) *listing {
	return c.newListing(env.Out, append([]string{"id", "username", "roles", "status", "email", "created at"}, more...)...)
}

func userRow(u *user.User) []any {
	roles := make([]string, len(u.Roles))
	for i, r := range u.Roles {
		roles[i] = string(r)
	}
	return []any{u.ID, u.Username, roles, u.Status, optional(u.Email), u.CreatedAt}
}

// optional returns the text, or that there is none.
func optional(text *string) any {
	if text == nil {
		return absent("-")
	}
	return *text
}

// maxCounted is how many sessions and keys of an account are counted.
const maxCounted = 100

func (c *commandLine) showUser(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error {
	u, err := findUser(ctx, tools, args)
	if err != nil {
		return err
	}
	now := tools.DB.Clock().Now()
	sessions, err := tools.DB.Sessions().LiveSessions(ctx, u.ID, now, maxCounted)
	if err != nil {
		return err
	}
	keys, err := tools.DB.Sessions().KeysOf(ctx, u.ID, maxCounted)
	if err != nil {
		return err
	}
	live := 0
	for _, k := range keys {
		if k.Live(now) {
			live++
		}
	}
	l := c.newUserListing(env, "name", "version", "sessions", "api keys")
	if err := l.add(append(userRow(u), u.Name, u.Version, len(sessions), live)...); err != nil {
		return err
	}
	return l.flush()
}

func parseRoles(list string) (roles []auth.Role) {
	for r := range strings.SplitSeq(list, ",") {
		roles = append(roles, auth.Role(strings.ToUpper(strings.TrimSpace(r))))
	}
	return roles
}

func roleNames() (names []string) {
	for _, r := range auth.Roles() {
		names = append(names, string(r))
	}
	return names
}
