package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	entkey "github.com/backplane-dev/backplane/ent/apikey"
	entsession "github.com/backplane-dev/backplane/ent/session"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Sessions implements session.Store.
type Sessions struct{ db *DB }

var _ session.Store = Sessions{}

// Sessions returns the store of credentials, sessions and keys. Its reads have connections of
// their own.
func (db *DB) Sessions() Sessions { return Sessions{db.withReads(db.credentials)} }

// accountColumns are what scanAccount reads; credentials are joined as c.
const accountColumns = `u.id, u.status, u.roles, COALESCE(c.hash, ''), COALESCE(c.version, 0)`

// fields returns where to scan accountColumns to, and what completes the account.
func accountScanTargets(a *session.Account) (fields []any, complete func()) {
	var status user.Status
	var roles string
	return []any{&a.UserID, &status, &roles, &a.PasswordHash, &a.PasswordVersion}, func() {
		a.Active, a.Roles = status == user.Active, splitRoles(roles)
	}
}

// AccountByLogin implements session.Accounts.
func (s Sessions) AccountByLogin(ctx context.Context, login string) (*session.Account, error) {
	if strings.Contains(login, "@") {
		return s.readAccount(ctx, "u.email_key", user.EmailKey(login))
	}
	return s.readAccount(ctx, "u.username_key", user.UsernameKey(login))
}

// AccountByID implements session.Accounts.
func (s Sessions) AccountByID(ctx context.Context, id uid.User) (*session.Account, error) {
	return s.readAccount(ctx, "u.id", string(id))
}

// AccountNames implements session.Accounts.
func (s Sessions) AccountNames(ctx context.Context, id uid.User) ([]string, error) {
	names := make([]string, 3)
	found, err := s.db.readConn().queryRow(ctx, `SELECT username, COALESCE(email, ''), name FROM users WHERE id = ?`,
		[]any{string(id)}, &names[0], &names[1], &names[2])
	if err == nil && !found {
		err = user.NotFound()
	}
	if err != nil {
		return nil, fmt.Errorf("read the names of account %s: %w", id, s.db.translateError(ctx, err))
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" }), nil
}

func (s Sessions) readAccount(ctx context.Context, column, value string) (*session.Account, error) {
	if !isStorable(value) {
		return nil, user.NotFound()
	}
	a, err := s.db.readConn().account(ctx, column, value)
	if err != nil {
		return nil, fmt.Errorf("read account: %w", s.db.translateError(ctx, err))
	}
	return a, nil
}

func (c conn) account(ctx context.Context, column, value string) (*session.Account, error) {
	a := &session.Account{}
	fields, complete := accountScanTargets(a)
	found, err := c.queryRow(ctx, `SELECT `+accountColumns+` FROM users u LEFT JOIN credentials c ON c.user_id = u.id WHERE `+column+` = ?`,
		[]any{value}, fields...)
	if err == nil && !found {
		err = user.NotFound()
	}
	if err != nil {
		return nil, err
	}
	complete()
	return a, nil
}

// lockAccount locks the account's row, then reads it with its password: in one
// statement PostgreSQL would show the password from before it waited.
func (t *tx) lockAccount(ctx context.Context, id uid.User) (*session.Account, error) {
	if t.isPostgres() {
		if _, err := t.exec(ctx, `SELECT 1 FROM users WHERE id = ? FOR UPDATE`, string(id)); err != nil {
			return nil, err
		}
	}
	return t.account(ctx, "u.id", string(id))
}

// UpdateAccountSessions implements session.Accounts.
func (s Sessions) UpdateAccountSessions(ctx context.Context, cl claim.Claim, id uid.User, at time.Time, fn func(*session.AccountSessions) error) error {
	_, err := changeInTx(ctx, s.db, cl, s.AccountByID, func(t *tx) (*session.Account, error) {
		h, err := t.lockAccountSessions(ctx, id, at)
		if err != nil {
			return nil, err
		}
		t.setResultObject(string(id), 0)
		account, versions := h.Account, mapSlice(h.Sessions, sessionVersion)
		if err := fn(h); err != nil {
			return nil, err
		}
		if err := t.savePasswordHash(ctx, account, h.Account, at); err != nil {
			return nil, err
		}
		t.recordEvents(h.TakeEvents())
		t.recordSecurityEvent(h.Security...)
		if err := saveRaised(ctx, h.Sessions, versions, sessionVersion, t.saveSession); err != nil {
			return nil, err
		}
		return &h.Account, t.insertSession(ctx, h.Opened)
	})
	if err != nil {
		return fmt.Errorf("update account %s: %w", id, err)
	}
	return nil
}

// UpdateCredentials implements session.Accounts.
func (s Sessions) UpdateCredentials(ctx context.Context, cl claim.Claim, id uid.User, at time.Time, fn func(*session.Credentials) error) error {
	_, err := changeInTx(ctx, s.db, cl, s.AccountByID, func(t *tx) (*session.Account, error) {
		a, err := t.lockCredentials(ctx, id, at)
		if err != nil {
			return nil, err
		}
		t.setResultObject(string(id), 0)
		account, sessions, keys := a.Account, mapSlice(a.Sessions, sessionVersion), mapSlice(a.Keys, keyVersion)
		if err := fn(a); err != nil {
			return nil, err
		}
		if err := t.savePasswordHash(ctx, account, a.Account, at); err != nil {
			return nil, err
		}
		t.recordEvents(a.TakeEvents())
		t.recordSecurityEvent(a.Security...)
		if err := saveRaised(ctx, a.Sessions, sessions, sessionVersion, t.saveSession); err != nil {
			return nil, err
		}
		return &a.Account, saveRaised(ctx, a.Keys, keys, keyVersion, t.saveKey)
	})
	if err != nil {
		return fmt.Errorf("update credentials of %s: %w", id, err)
	}
	return nil
}

func sessionVersion(s *session.Session) int { return s.Version }

func keyVersion(k *session.APIKey) int { return k.Version }

// saveRaised saves those whose version is not the one that it was before.
func saveRaised[T any](ctx context.Context, all []T, before []int, version func(T) int, save func(context.Context, T) error) error {
	for i, v := range all {
		if version(v) == before[i] {
			continue
		}
		if err := save(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) lockCredentials(ctx context.Context, id uid.User, at time.Time) (*session.Credentials, error) {
	h, err := t.lockAccountSessions(ctx, id, at)
	if err != nil {
		return nil, err
	}
	rows, err := t.ent.APIKey.Query().
		Where(entkey.UserID(id), entkey.RevokedAtIsNil(), entkey.ExpiresAtGT(toMicros(at)), t.forUpdate).
		Order(entkey.ByID()).All(ctx)
	return &session.Credentials{Account: h.Account, Sessions: h.Sessions, Keys: mapSlice(rows, toKey)}, err
}

func (t *tx) lockAccountSessions(ctx context.Context, id uid.User, at time.Time) (*session.AccountSessions, error) {
	a, err := t.lockAccount(ctx, id)
	if err != nil {
		return nil, err
	}
	rows, err := t.ent.Session.Query().
		Where(entsession.UserID(id), entsession.RevokedAtIsNil(), entsession.ExpiresAtGT(toMicros(at)), t.forUpdate).
		Order(entsession.ByID()).All(ctx)
	return &session.AccountSessions{Account: *a, Sessions: mapSlice(rows, toSession)}, err
}

func (t *tx) savePasswordHash(ctx context.Context, before, after session.Account, at time.Time) error {
	if after.PasswordHash == before.PasswordHash && after.PasswordVersion == before.PasswordVersion {
		return nil
	}
	t.dirty = true
	if after.PasswordHash == "" {
		return t.queue(ctx, `DELETE FROM credentials WHERE user_id = ?`, string(after.UserID))
	}
	return t.queue(ctx, `INSERT INTO credentials (user_id, hash, version, changed_at) VALUES (?, ?, ?, ?)
		ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, version = excluded.version, changed_at = excluded.changed_at`,
		string(after.UserID), after.PasswordHash, after.PasswordVersion, toMicros(at))
}

// TouchKeys implements session.Keys.
func (s Sessions) TouchKeys(ctx context.Context, used map[uid.APIKey]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	ids := make([]uid.APIKey, 0, len(used))
	for id := range used {
		ids = append(ids, id)
	}
	slices.Sort(ids) // locks are taken in this order
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		for _, id := range ids {
			at := toMicros(used[id])
			if _, err := t.exec(ctx, `UPDATE api_keys SET last_used_at = ? WHERE id = ? AND (last_used_at IS NULL OR last_used_at < ?)`,
				at, string(id), at.Add(-session.UseInterval)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note the use of API keys: %w", err)
	}
	return nil
}
