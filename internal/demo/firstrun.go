package demo

import (
	"context"
	"fmt"
	"io"
	"net"
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

// PrintGreeting says where the server listens and how to sign in.
func PrintGreeting(out io.Writer, addr net.Addr, accounts []Account, withDemo bool) {
	fmt.Fprintf(out, "\nBackplane is listening\n  GraphiQL  http://%[1]s/\n  GraphQL   http://%[1]s/graphql\n", addr)
	if len(accounts) == 0 {
		if withDemo {
			fmt.Fprint(out, "\nThe database exists already, and its passwords were printed when it was created. Delete it to start again.\n")
		}
		fmt.Fprintln(out)
		return
	}
	fmt.Fprint(out, "\nSign in with one of these accounts. The passwords are not shown again:\n\n")
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "  role\tlogin\tpassword\n")
	for _, a := range accounts {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", a.Roles[0], a.Username, a.Password)
	}
	_ = w.Flush() // a greeting that cannot be written does not stop the server
	fmt.Fprintf(out, "\n  mutation { signIn(input: {login: %q, password: %q}) { session { accessToken } } }\n\n"+
		"Then send the header  Authorization: Bearer ACCESS_TOKEN\n\n", accounts[0].Username, accounts[0].Password)
}
