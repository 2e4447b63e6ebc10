package demo

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session/password"
	"github.com/backplane-dev/backplane/internal/user"
)

// Hasher returns the hash of a new password of an account with the names.
type Hasher func(password string, names ...string) (string, error)

// CreateAdmin creates the first ADMIN if the database has none: the operator's
// account, or admin with a random password if username is empty. It returns the
// account whose password the operator does not know yet, if any.
func CreateAdmin(ctx context.Context, users *user.Service, hash Hasher, username, secret string) ([]Account, error) {
	given := username != ""
	if !given {
		username, secret = "admin", password.Generate()
	}
	created, err := users.FirstAdmin(ctx, username, func(_ context.Context, names []string) (user.PasswordHash, error) {
		hashed, err := hash(secret, names...)
		return user.PasswordHash(hashed), err
	})
	if fault.Is(err, user.CodeUsernameTaken) {
		return nil, fmt.Errorf("there is no active ADMIN, and another account is named %q: set BACKPLANE_ADMIN_USERNAME and BACKPLANE_ADMIN_PASSWORD to an unused name and a password", username)
	}
	if err != nil || !created || given {
		return nil, err
	}
	return []Account{{Username: username, Password: secret, Roles: []auth.Role{auth.Admin}}}, nil
}

// Greeting is what a server that has started tells the operator.
type Greeting struct {
	Address      string    // host:port of the API
	AdminAddress string    // host:port of metrics and profiles; empty if they are off
	WithDocs     bool      // whether GraphiQL and the page of the REST routes are served
	WithDemo     bool      // whether it serves demo data
	Accounts     []Account // whose passwords the operator does not know yet
}

// Print writes where the server listens and how to sign in.
func (g Greeting) Print(out io.Writer) {
	fmt.Fprint(out, "\nBackplane is listening\n")
	if g.WithDocs {
		fmt.Fprintf(out, "  GraphiQL   http://%[1]s/\n  REST docs  http://%[1]s/docs\n", g.Address)
	}
	fmt.Fprintf(out, "  GraphQL    http://%s/graphql\n", g.Address)
	if g.AdminAddress != "" {
		fmt.Fprintf(out, "  metrics    http://%s/metrics\n", g.AdminAddress)
	}
	if len(g.Accounts) == 0 {
		if g.WithDemo {
			fmt.Fprint(out, "\nThe database exists already, and its passwords were printed when it was created. `backplane users set-password NAME` sets another one.\n")
		}
		fmt.Fprintln(out)
		return
	}
	fmt.Fprint(out, "\nSign in with one of these accounts. The passwords are not shown again:\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "  role\tlogin\tpassword\n")
	for _, a := range g.Accounts {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", a.Roles[0], a.Username, a.Password)
	}
	_ = w.Flush() // a greeting that cannot be written does not stop the server
	fmt.Fprintf(out, "\n  mutation { signIn(input: {login: %q, password: %q}) { session { accessToken } } }\n\n"+
		"Then send the header  Authorization: Bearer ACCESS_TOKEN\n\n", g.Accounts[0].Username, g.Accounts[0].Password)
}
