package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"text/tabwriter"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/user"
)

// firstAccounts makes the accounts that a fresh database needs, and returns
// those whose passwords nobody knows yet.
func (n *node) firstAccounts(ctx context.Context, a *app, withDemo bool) ([]demo.Account, error) {
	if withDemo {
		accounts, err := demo.Demo(ctx, n.db, func(password string) (string, error) { return n.sessions.HashPassword(ctx, password) })
		if err != nil || len(accounts) > 0 {
			return accounts, err
		}
	}
	name, password := a.cfg.AdminUsername, string(a.cfg.AdminPassword)
	if name == "" {
		name, password = "admin", session.NewPassword()
	}
	created, err := n.users.FirstAdmin(ctx, name, func(ctx context.Context) (user.Credential, error) {
		hash, err := n.sessions.HashPassword(ctx, password)
		return user.Credential(hash), err
	})
	if fault.Is(err, fault.UsernameTaken) {
		return nil, fmt.Errorf("there is no active ADMIN, and %q is the name of another account: set BACKPLANE_ADMIN_USERNAME to a free one", name)
	}
	if err != nil || !created || a.cfg.AdminUsername != "" {
		return nil, err
	}
	return []demo.Account{{Username: name, Password: password, Roles: []auth.Role{auth.Admin}}}, nil
}

// greet says where the server is and how to get in.
func greet(out io.Writer, addr net.Addr, accounts []demo.Account, withDemo bool) {
	fmt.Fprintf(out, "\nBackplane serves\n  GraphiQL  http://%[1]s/\n  GraphQL   http://%[1]s/graphql\n", addr)
	if len(accounts) == 0 {
		if withDemo {
			fmt.Fprint(out, "\nThe database is not new; its passwords were shown when it was made. Remove it to start over.\n")
		}
		fmt.Fprintln(out)
		return
	}
	fmt.Fprint(out, "\nSign in with one of these; the passwords are shown this one time:\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "  role\tlogin\tpassword\n")
	for _, acct := range accounts {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", acct.Roles[0], acct.Username, acct.Password)
	}
	_ = w.Flush() // a greeting that nobody can read stops no server
	fmt.Fprintf(out, "\n  mutation { signIn(input: {login: %q, password: %q}) { session { accessToken } } }\n\n"+
		"Then send the header  Authorization: Bearer ACCESS_TOKEN\n\n", accounts[0].Username, accounts[0].Password)
}
