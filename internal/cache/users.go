package cache

import (
	"context"

	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Users is a user.Store with what it has read in front of it. Accounts that it
// returns are shared: they are not to be changed.
type Users struct {
	user.Store

	table *table[uid.User, *user.User]
}

var _ user.Store = (*Users)(nil)

// Users decorates a store of accounts, once; with a cache that is off it returns
// the store itself.
func (c *Cache) Users(s user.Store) user.Store {
	if c.isOff() {
		return s
	}
	return &Users{s, newTable(c, shape[uid.User, *user.User]{
		entity: entityUser, share: 0.25, read: s.ByIDs,
		version: func(u *user.User) int { return u.Version },
		size: func(u *user.User) int {
			return 250 + len(u.Username) + length(u.Email) + len(u.Name) + 32*len(u.Roles) + length(u.LegacyID)
		},
		decode: decodeJSON(func(u *user.User) uid.User { return u.ID }),
	})}
}

func userID(u *user.User) uid.User { return u.ID }

// Peek returns the account if process memory holds it and it may be shown. It
// does not wait.
func (s *Users) Peek(id uid.User) (*user.User, bool) { return s.table.livePeek(id) }

// ByIDs implements user.Store.
func (s *Users) ByIDs(ctx context.Context, ids []uid.User) (map[uid.User]*user.User, error) {
	return s.table.byIDs(ctx, ids)
}

// ByUsername implements user.Store. Names are not kept; what is read is.
func (s *Users) ByUsername(ctx context.Context, name string) (*user.User, error) {
	return s.table.one(userID, func() (*user.User, error) { return s.Store.ByUsername(ctx, name) })
}

// List implements user.Store.
func (s *Users) List(ctx context.Context, f user.Filter, o user.OrderBy, args page.Args) (page.Page[*user.User], error) {
	query := func(ctx context.Context) (page.Page[*user.User], error) { return s.Store.List(ctx, f, o, args) }
	return pages(ctx, s.table, userID, query, f, o, args)
}

// Count implements user.Store.
func (s *Users) Count(ctx context.Context, f user.Filter) (int, error) {
	return s.table.c.counted(ctx, entityUser, func(ctx context.Context) (int, error) { return s.Store.Count(ctx, f) }, f)
}

// Create implements user.Store.
func (s *Users) Create(ctx context.Context, u *user.User, c user.Credential) (*user.User, error) {
	return s.table.written(userID, nil, func() (*user.User, error) { return s.Store.Create(ctx, u, c) })
}

// Update implements user.Store.
func (s *Users) Update(ctx context.Context, id uid.User, fn func(*user.User) error) (*user.User, error) {
	shown := 0
	return s.table.written(userID, map[uid.User]*int{id: &shown}, func() (*user.User, error) {
		return s.Store.Update(ctx, id, func(u *user.User) error {
			shown = u.Version
			return fn(u)
		})
	})
}

// UpdateStanding implements user.Store.
func (s *Users) UpdateStanding(ctx context.Context, id uid.User, fn func(*user.User, int) error) (*user.User, error) {
	shown := 0
	return s.table.written(userID, map[uid.User]*int{id: &shown}, func() (*user.User, error) {
		return s.Store.UpdateStanding(ctx, id, func(u *user.User, otherAdmins int) error {
			shown = u.Version
			return fn(u, otherAdmins)
		})
	})
}
