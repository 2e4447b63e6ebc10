package app

import (
	"context"

	"github.com/backplane-dev/backplane/graph"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/store"
)

// CreateFirstAccounts creates the accounts that an empty database needs, with the
// demo shop if withDemo, and returns those whose passwords are to be printed.
func CreateFirstAccounts(ctx context.Context, env Env, db *store.DB, domains graph.Domains, withDemo bool) ([]demo.Account, error) {
	hash := func(password string, names ...string) (string, error) {
		return domains.Sessions.HashPassword(ctx, password, names...)
	}
	if withDemo {
		accounts, err := demo.FillShop(ctx, db, hash)
		if err != nil || len(accounts) > 0 {
			return accounts, err
		}
	}
	return demo.CreateAdmin(ctx, domains.Users, hash, env.Config.AdminUsername, string(env.Config.AdminPassword))
}
