package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Users is a user.Store with the cache in front of it. Callers must not change the accounts that it
// returns.
type Users struct {
	userStore
	rows[uid.User, *user.User, user.Filter, user.OrderBy]
}

type userStore struct{ user.Store }

var _ user.Store = (*Users)(nil)

// Users decorates a store of accounts, once. If the cache is off, it returns the store itself.
func (c *Cache) Users(s user.Store) user.Store {
	if c.isOff() {
		return s
	}
	return &Users{userStore{s}, newRows(c, users, s)}
}

// ByUsername implements user.Store. The cache does not find accounts by name; it keeps what is read.
func (s *Users) ByUsername(ctx context.Context, name string) (*user.User, error) {
	return s.table.readOne(func() (*user.User, error) { return s.Store.ByUsername(ctx, name) })
}

// Create implements user.Store.
func (s *Users) Create(ctx context.Context, cl claim.Claim, u *user.User, c user.PasswordHash) (*user.User, error) {
	return s.table.runCreate(func() (*user.User, error) { return s.Store.Create(ctx, cl, u, c) })
}

// UpdateCountingAdmins implements user.Store.
func (s *Users) UpdateCountingAdmins(ctx context.Context, cl claim.Claim, id uid.User, fn func(*user.User, int) error) (*user.User, error) {
	return s.table.runUpdate(id, func(observe func(*user.User)) (*user.User, error) {
		return s.Store.UpdateCountingAdmins(ctx, cl, id, func(u *user.User, otherAdmins int) error {
			observe(u)
			return fn(u, otherAdmins)
		})
	})
}
