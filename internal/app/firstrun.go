package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/store"
)

// Greet creates the accounts that an empty database needs, with the demo shop if withDemo, and prints where the
// server listens and how to sign in.
func Greet(ctx context.Context, env Env, addr net.Addr, db *store.DB, domains graph.Domains, withDemo bool) error {
	accounts, err := createFirstAccounts(ctx, env, db, domains, withDemo)
	if err != nil {
		return err
	}
	g := demo.Greeting{Address: addr.String(), WithDocs: !env.Config.HTTP.HideDocs, WithDemo: withDemo, Accounts: accounts}
	if env.Config.AdminListen != config.Off {
		g.AdminAddress = env.Config.AdminListen
	}
	g.Print(env.Out)
	return nil
}

// createFirstAccounts returns the accounts whose passwords are to be printed.
func createFirstAccounts(ctx context.Context, env Env, db *store.DB, domains graph.Domains, withDemo bool) ([]demo.Account, error) {
	hash := func(password string, names ...string) (string, error) {
		return domains.Sessions.HashPassword(ctx, password, names...)
	}
	if withDemo {
		accounts, err := demo.FillShop(ctx, db, hash)
		if err != nil || len(accounts) > 0 {
			return accounts, err
		}
	}
	if env.Config.AdminUsername != "" || env.OutIsTerminal {
		return demo.CreateAdmin(ctx, domains.Users, hash, env.Config.AdminUsername, string(env.Config.AdminPassword))
	}
	return nil, createAdminIntoFile(ctx, env, domains, hash)
}

// createAdminIntoFile creates the first ADMIN, if there is none, and puts its password into a file that only its
// owner can read: the output may be a log.
func createAdminIntoFile(ctx context.Context, env Env, domains graph.Domains, hash demo.Hasher) error {
	var file string
	accounts, err := demo.CreateAdmin(ctx, domains.Users, func(password string, names ...string) (string, error) {
		hashed, err := hash(password, names...)
		if err == nil {
			file, err = writeAdminPassword(env, password)
		}
		return hashed, err
	}, "", "")
	if err != nil || len(accounts) == 0 { // or another node was faster
		if file != "" {
			err = errors.Join(err, os.Remove(file))
		}
		return err
	}
	env.Log.WarnContext(ctx, "the first ADMIN was created; sign in, change its password, and remove the file that has it", "username", accounts[0].Username, "file", file)
	return nil
}

// writeAdminPassword writes the password to a new file: next to an SQLite database, else in the working directory.
func writeAdminPassword(env Env, password string) (path string, err error) {
	dir := "."
	if path, embedded := env.Config.Database.SQLite(); embedded {
		dir = filepath.Dir(path)
	}
	f, err := os.CreateTemp(dir, "admin-password-*.txt") // of mode 0600
	if err != nil {
		return "", fmt.Errorf("write the password of the first ADMIN to a file, since the output is no terminal (set BACKPLANE_ADMIN_USERNAME and BACKPLANE_ADMIN_PASSWORD to choose it): %w", err)
	}
	_, err = fmt.Fprintln(f, password)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	if full, err := filepath.Abs(f.Name()); err == nil {
		return full, nil
	}
	return f.Name(), nil
}
