package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/ent"
	entuser "github.com/backplane-dev/backplane/ent/user"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Users implements user.Store.
type Users struct{ db *DB }

var _ user.Store = Users{}

// Create implements user.Store.
func (s Users) Create(ctx context.Context, cl claim.Claim, u *user.User, c user.PasswordHash) (*user.User, error) {
	recorded := u.TakeEvents()
	out, err := changeInTx(ctx, s.db, cl, s.readUser, func(t *tx) (*user.User, error) {
		v, events := *u, slices.Clone(recorded)
		if err := t.assignLegacyID(ctx, entuser.Table, &v.LegacyID, events); err != nil {
			return nil, err
		}
		if err := t.checkConfusable(ctx, &v); err != nil {
			return nil, err
		}
		truncateUserTimes(&v)
		if err := t.insertUsers(ctx, Batch{Users: []*user.User{&v}, Credentials: map[*user.User]user.PasswordHash{&v: c}}); err != nil {
			return nil, err
		}
		t.recordUserChange(&v, events)
		t.recordRights(ctx, nil, &v)
		return &v, nil
	})
	if err != nil {
		return nil, fmt.Errorf("create user: %w", err)
	}
	return out, nil
}

// Update implements user.Store. The row stays locked until the commit.
func (s Users) Update(ctx context.Context, cl claim.Claim, id uid.User, fn func(*user.User) error) (*user.User, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readUser, func(t *tx) (*user.User, error) { return t.updateUser(ctx, id, fn) })
	if err != nil {
		return nil, fmt.Errorf("update user %s: %w", id, err)
	}
	return out, nil
}

// adminCountLock is the row that changes of standing lock before the account: two transactions
// in which ADMINs remove one another run one after the other, and the second fails with LAST_ADMIN.
const adminCountLock = "gate.standing"

// UpdateCountingAdmins implements user.Store.
func (s Users) UpdateCountingAdmins(ctx context.Context, cl claim.Claim, id uid.User, fn func(u *user.User, otherAdmins int) error) (*user.User, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readUser, func(t *tx) (*user.User, error) {
		if err := t.lockSetting(ctx, adminCountLock); err != nil {
			return nil, err
		}
		others, err := t.ent.User.Query().Where(entuser.Admin(true), entuser.StatusEQ(user.Active), entuser.IDNEQ(id)).Count(ctx)
		if err != nil {
			return nil, err
		}
		existed := true
		u, err := t.updateUser(ctx, id, func(u *user.User) error {
			existed = u.Status != user.Deleted
			return fn(u, others)
		})
		if err != nil {
			return nil, err
		}
		if existed && u.Status == user.Deleted {
			err = t.erasePersonalData(ctx, u)
		}
		return u, err
	})
	if err != nil {
		return nil, fmt.Errorf("update standing of user %s: %w", id, err)
	}
	return out, nil
}

// lockSetting locks a row of settings, which it makes if it is missing.
func (t *tx) lockSetting(ctx context.Context, gate string) error {
	_, err := t.exec(ctx, `INSERT INTO settings (name, number) VALUES (?, 0) ON CONFLICT (name) DO UPDATE SET number = settings.number`, gate)
	return err
}

func (t *tx) updateUser(ctx context.Context, id uid.User, fn func(*user.User) error) (*user.User, error) {
	row, err := t.ent.User.Query().Where(entuser.ID(id), t.forUpdate).Only(ctx)
	if err != nil {
		return nil, orMissing(err, user.NotFound())
	}
	t.setResultObject(string(id), row.Version)
	u := toUser(row)
	if err := fn(u); err != nil {
		return nil, err
	}
	events := u.TakeEvents()
	if len(events) == 0 {
		return toUser(row), nil
	}
	if u.Username != row.Username && u.Status != user.Deleted {
		if err := t.checkConfusable(ctx, u); err != nil {
			return nil, err
		}
	}
	truncateUserTimes(u)
	if err := saveUser(t.ent, u).Exec(ctx); err != nil {
		return nil, err
	}
	t.recordUserChange(u, events)
	t.recordRights(ctx, toUser(row), u)
	return u, nil
}

// otherThanCustomer is the condition of the partial index of users, in its words.
const otherThanCustomer = "roles <> 'CUSTOMER'"

// checkConfusable refuses a user name that is confusable with that of an account with STAFF or ADMIN. It does not
// see accounts that get the role, or the name, in a transaction that is not yet committed.
func (t *tx) checkConfusable(ctx context.Context, u *user.User) error {
	rows, err := t.ent.User.Query().Where(func(q *entsql.Selector) { q.Where(entsql.ExprP(otherThanCustomer)) }).
		Select(entuser.FieldID, entuser.FieldUsername, entuser.FieldRoles).All(ctx)
	if err != nil {
		return err
	}
	var staff []user.Named
	for _, row := range rows {
		if user.IsStaff(splitRoles(row.Roles)) {
			staff = append(staff, user.Named{ID: row.ID, Username: row.Username})
		}
	}
	return u.CheckConfusable(staff)
}

// recordRights records the security events of a user whose roles or status changed; before is nil for a new
// user, of which only other roles than CUSTOMER are recorded. Deletion has an event of its own.
func (t *tx) recordRights(ctx context.Context, before, after *user.User) {
	if before == nil {
		before = &user.User{Roles: []auth.Role{auth.Customer}, Status: user.Active}
	}
	record := func(typ security.EventType, detail string) {
		e := security.New(ctx, typ, detail, after.UpdatedAt)
		e.UserID = after.ID
		t.recordSecurityEvent(e)
	}
	if after.Status == user.Deleted {
		return
	}
	if !slices.Equal(before.Roles, after.Roles) {
		record(security.UserRolesChanged, joinRoles(after.Roles))
	}
	if before.Status != after.Status {
		record(security.UserStatusChanged, string(after.Status))
	}
}

func (t *tx) recordUserChange(u *user.User, events []event.Event) {
	t.setResultObject(string(u.ID), u.Version)
	t.touchRow(user.Entity.Name, string(u.ID), u.Version)
	t.recordEvents(events)
}

// ByIDs implements user.Store.
func (s Users) ByIDs(ctx context.Context, ids []uid.User) (map[uid.User]*user.User, error) {
	found := make(map[uid.User]*user.User, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.User.Query().Where(oneOfValues(entuser.FieldID, some)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read users: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.ID] = toUser(row)
		}
	}
	return found, nil
}

func (s Users) readUser(ctx context.Context, id uid.User) (*user.User, error) {
	found, err := s.ByIDs(ctx, []uid.User{id})
	if err == nil && found[id] == nil {
		err = user.NotFound()
	}
	return found[id], err
}

// ByUsername implements user.Store.
func (s Users) ByUsername(ctx context.Context, name string) (*user.User, error) {
	row, err := s.db.client.User.Query().Where(equalsText(entuser.FieldUsernameKey, user.UsernameKey(name))).Only(ctx)
	if err != nil {
		return nil, fmt.Errorf("read user by name: %w", s.db.translateError(ctx, orMissing(err, user.NotFound())))
	}
	return toUser(row), nil
}

// AnyAdmin reports whether there is an active ADMIN: without one the first
// start creates one.
func (s Users) AnyAdmin(ctx context.Context) (bool, error) {
	found, err := s.db.client.User.Query().Where(entuser.Admin(true), entuser.StatusEQ(user.Active)).Exist(ctx)
	return found, s.db.translateError(ctx, err)
}

var userOrders = map[user.OrderBy]keyset[*user.User]{
	user.ByCreatedDesc:  usersByCreated(user.ByCreatedDesc, true),
	user.ByCreatedAsc:   usersByCreated(user.ByCreatedAsc, false),
	user.ByUsernameDesc: usersByName(user.ByUsernameDesc, true),
	user.ByUsernameAsc:  usersByName(user.ByUsernameAsc, false),
}

func usersByCreated(name user.OrderBy, desc bool) keyset[*user.User] {
	key := func(u *user.User) string { return timeKey(u.CreatedAt) }
	return keyset[*user.User]{string(name), entuser.FieldCreatedAt, desc, key, userID, parseTime}
}

func usersByName(name user.OrderBy, desc bool) keyset[*user.User] {
	key := func(u *user.User) string { return validate.SortKey(u.Username) }
	return keyset[*user.User]{string(name), entuser.FieldUsernameSort, desc, key, userID, parseText}
}

func userID(u *user.User) string { return string(u.ID) }

// List implements user.Store.
func (s Users) List(ctx context.Context, f user.Filter, o user.OrderBy, args page.Args) (page.Page[*user.User], error) {
	return listPage(ctx, s.db, s.queryMatching, f, userOrders[o], args, toUser)
}

// Count implements user.Store.
func (s Users) Count(ctx context.Context, f user.Filter) (int, error) {
	return countRows(ctx, s.db, s.queryMatching, f)
}

func (s Users) queryMatching(f user.Filter) (*ent.UserQuery, error) {
	q := s.db.lists.User.Query()
	if f.IDs != nil {
		q.Where(entuser.IDIn(f.IDs...))
	}
	if f.Status != nil {
		q.Where(entuser.StatusEQ(*f.Status))
	}
	if f.Username != nil {
		q.Where(equalsText(entuser.FieldUsernameKey, user.UsernameKey(*f.Username)))
	}
	if f.Email != nil {
		q.Where(equalsText(entuser.FieldEmailKey, user.EmailKey(*f.Email)))
	}
	if f.LegacyID != nil {
		q.Where(equalsText(entuser.FieldLegacyID, *f.LegacyID))
	}
	if f.CreatedAfter != nil {
		q.Where(entuser.CreatedAtGTE(toMicros(*f.CreatedAfter)))
	}
	if f.CreatedBefore != nil {
		q.Where(entuser.CreatedAtLT(toMicros(*f.CreatedBefore)))
	}
	return q, checkList("ids", len(f.IDs))
}

func saveUser(c *ent.Client, u *user.User) *ent.UserUpdate {
	q := c.User.Update().Where(entuser.ID(u.ID)).
		SetUsername(u.Username).SetUsernameKey(user.UsernameKey(u.Username)).SetUsernameSort(validate.SortKey(u.Username)).SetName(u.Name).
		SetRoles(joinRoles(u.Roles)).SetAdmin(slices.Contains(u.Roles, auth.Admin)).SetStatus(u.Status).
		SetVersion(u.Version).SetUpdatedAt(u.UpdatedAt)
	if u.Email == nil {
		q.ClearEmail().ClearEmailKey()
	} else {
		q.SetEmail(*u.Email).SetEmailKey(user.EmailKey(*u.Email))
	}
	if u.LegacyID == nil {
		return q.ClearLegacyID()
	}
	return q.SetLegacyID(*u.LegacyID)
}

func toUser(r *ent.User) *user.User {
	return &user.User{
		ID: r.ID, Username: r.Username, Email: r.Email, Name: r.Name, Roles: splitRoles(r.Roles), Status: r.Status, LegacyID: r.LegacyID,
		Version: r.Version, CreatedAt: toMicros(r.CreatedAt), UpdatedAt: toMicros(r.UpdatedAt),
	}
}

// truncateUserTimes gives an account the times that will be read back.
func truncateUserTimes(u *user.User) {
	u.CreatedAt, u.UpdatedAt = toMicros(u.CreatedAt), toMicros(u.UpdatedAt)
}

func emailKey(email *string) *string {
	if email == nil {
		return nil
	}
	k := user.EmailKey(*email)
	return &k
}

func joinRoles(roles []auth.Role) string { return joinList(roles) }

func splitRoles(s string) []auth.Role { return splitList[auth.Role](s) }

func joinList[T ~string](values []T) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(v))
	}
	return b.String()
}

func splitList[T ~string](s string) []T {
	if s == "" {
		return nil
	}
	var out []T
	for v := range strings.SplitSeq(s, ",") {
		out = append(out, T(v))
	}
	return out
}

// orMissing turns ent's not-found error into the domain's.
func orMissing(err, missing error) error {
	if ent.IsNotFound(err) {
		return missing
	}
	return err
}

func mapSlice[A, B any](in []A, fn func(A) B) []B {
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = fn(v)
	}
	return out
}
