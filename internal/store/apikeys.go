package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/ent"
	entkey "github.com/backplane-dev/backplane/ent/apikey"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
)

// CreateKey implements session.Keys.
func (s Sessions) CreateKey(ctx context.Context, k *session.APIKey, at time.Time, allow func(*session.Account, int) error) error {
	events := k.TakeEvents()
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		owner, err := t.lockAccount(ctx, k.UserID)
		if err != nil {
			return err
		}
		live, err := t.ent.APIKey.Query().Where(entkey.UserID(k.UserID), entkey.RevokedAtIsNil(), entkey.ExpiresAtGT(toMicros(at))).Count(ctx)
		if err != nil {
			return err
		}
		if err := allow(owner, live); err != nil {
			return err
		}
		t.recordEvents(events)
		t.touchUncachedRow(session.APIKeyEntity.Name, string(k.ID), k.Version)
		return t.ent.APIKey.Create().SetID(k.ID).SetUserID(k.UserID).SetName(k.Name).SetScopes(joinList(k.Scopes)).SetHash(k.Hash).
			SetVersion(k.Version).SetCreatedAt(toMicros(k.CreatedAt)).SetUpdatedAt(toMicros(k.UpdatedAt)).SetExpiresAt(toMicros(k.ExpiresAt)).
			SetNillableLastUsedAt(toMicrosOrNil(k.LastUsedAt)).SetNillableRevokedAt(toMicrosOrNil(k.RevokedAt)).Exec(ctx)
	})
	if err != nil {
		return fmt.Errorf("create API key: %w", err)
	}
	return nil
}

// UpdateKey implements session.Keys.
func (s Sessions) UpdateKey(ctx context.Context, cl claim.Claim, id uid.APIKey, fn func(*session.APIKey) error) (*session.APIKey, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readKey, func(t *tx) (*session.APIKey, error) {
		row, err := t.ent.APIKey.Query().Where(entkey.ID(id), t.forUpdate).Only(ctx)
		if err != nil {
			return nil, orMissing(err, session.KeyNotFound())
		}
		t.setResultObject(string(id), row.Version)
		k := toKey(row)
		if err := fn(k); err != nil {
			return nil, err
		}
		if k.Version == row.Version {
			return toKey(row), nil
		}
		t.setResultObject(string(id), k.Version)
		t.recordEvents(k.TakeEvents())
		return k, t.saveKey(ctx, k)
	})
	if err != nil {
		return nil, fmt.Errorf("update API key %s: %w", id, err)
	}
	return out, nil
}

func (t *tx) saveKey(ctx context.Context, k *session.APIKey) error {
	t.touchUncachedRow(session.APIKeyEntity.Name, string(k.ID), k.Version)
	k.UpdatedAt, k.ExpiresAt, k.RevokedAt = toMicros(k.UpdatedAt), toMicros(k.ExpiresAt), toMicrosOrNil(k.RevokedAt)
	return t.ent.APIKey.Update().Where(entkey.ID(k.ID)).SetName(k.Name).SetScopes(joinList(k.Scopes)).SetHash(k.Hash).
		SetVersion(k.Version).SetUpdatedAt(k.UpdatedAt).SetExpiresAt(k.ExpiresAt).SetNillableRevokedAt(k.RevokedAt).
		SetNillableExpiryAnnouncedAt(toMicrosOrNil(k.ExpiryAnnouncedAt)).Exec(ctx)
}

// AnnounceExpiring implements session.Keys. The column that it sets keeps other nodes, and this one after a restart, from
// announcing a key again; the index of expires_at finds the keys.
func (s Sessions) AnnounceExpiring(ctx context.Context, now, before time.Time, limit int) (n int, err error) {
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		n, t.dirty = 0, true
		var ids []uid.APIKey
		err := t.eachRow(ctx, `SELECT id FROM api_keys WHERE expires_at > ? AND expires_at <= ? AND revoked_at IS NULL AND expiry_announced_at IS NULL
			ORDER BY expires_at LIMIT ?`+t.lockClause("FOR UPDATE SKIP LOCKED"), []any{toMicros(now), toMicros(before), limit}, func(scan func(...any) error) error {
			var id uid.APIKey
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		rows, err := t.ent.APIKey.Query().Where(entkey.IDIn(ids...)).All(ctx)
		if err != nil {
			return err
		}
		for _, row := range rows {
			k := toKey(row)
			k.AnnounceExpiry(now)
			t.recordEvents(k.TakeEvents())
			if err := t.saveKey(ctx, k); err != nil {
				return err
			}
		}
		n = len(rows)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("announce API keys that end soon: %w", err)
	}
	return n, nil
}

// ExpiringKeys implements session.Keys.
func (s Sessions) ExpiringKeys(ctx context.Context, now, before time.Time, limit int) ([]*session.APIKey, int, error) {
	ending := func() *ent.APIKeyQuery {
		return s.db.client.APIKey.Query().Where(entkey.ExpiresAtGT(toMicros(now)), entkey.ExpiresAtLTE(toMicros(before)), entkey.RevokedAtIsNil())
	}
	n, err := ending().Where(limitCount).Count(ctx)
	var rows []*ent.APIKey
	if err == nil && limit > 0 {
		rows, err = ending().Order(ent.Asc(entkey.FieldExpiresAt, entkey.FieldID)).Limit(limit).All(ctx)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read API keys that end soon: %w", s.db.translateError(ctx, err))
	}
	return mapSlice(rows, toKey), n, nil
}

// KeyWithAccount implements session.Keys.
func (s Sessions) KeyWithAccount(ctx context.Context, id uid.APIKey) (*session.APIKey, *session.Account, error) {
	k, a := &session.APIKey{}, &session.Account{}
	var created, updated, expires instant
	var used, revoked *instant
	var scopes string
	account, complete := accountScanTargets(a)
	found, err := s.db.readConn().queryRow(ctx, `SELECT k.id, k.user_id, k.name, k.scopes, k.hash, k.version, k.created_at, k.updated_at, k.expires_at,
			k.last_used_at, k.revoked_at, `+accountColumns+`
		FROM api_keys k JOIN users u ON u.id = k.user_id LEFT JOIN credentials c ON c.user_id = u.id WHERE k.id = ?`, []any{string(id)},
		append([]any{&k.ID, &k.UserID, &k.Name, &scopes, &k.Hash, &k.Version, &created, &updated, &expires, &used, &revoked}, account...)...)
	if err == nil && !found {
		err = session.KeyNotFound()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the standing of API key %s: %w", id, s.db.translateError(ctx, err))
	}
	complete()
	k.Scopes, k.CreatedAt, k.UpdatedAt, k.ExpiresAt = splitList[auth.Scope](scopes), created.Time, updated.Time, expires.Time
	k.LastUsedAt, k.RevokedAt = used.orNil(), revoked.orNil()
	return k, a, nil
}

// KeysByIDs implements session.Keys.
func (s Sessions) KeysByIDs(ctx context.Context, ids []uid.APIKey) (map[uid.APIKey]*session.APIKey, error) {
	found := make(map[uid.APIKey]*session.APIKey, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.APIKey.Query().Where(entkey.IDIn(some...)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read API keys: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.ID] = toKey(row)
		}
	}
	return found, nil
}

func (s Sessions) readKey(ctx context.Context, id uid.APIKey) (*session.APIKey, error) {
	found, err := s.KeysByIDs(ctx, []uid.APIKey{id})
	if err == nil && found[id] == nil {
		err = session.KeyNotFound()
	}
	return found[id], err
}

// KeysOf implements session.Keys.
func (s Sessions) KeysOf(ctx context.Context, user uid.User, limit int) ([]*session.APIKey, error) {
	rows, err := s.db.client.APIKey.Query().Where(entkey.UserID(user)).
		Order(ent.Desc(entkey.FieldCreatedAt, entkey.FieldID)).Limit(limit).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read API keys: %w", s.db.translateError(ctx, err))
	}
	return mapSlice(rows, toKey), nil
}

func toKey(r *ent.APIKey) *session.APIKey {
	return &session.APIKey{
		ID: r.ID, UserID: r.UserID, Name: r.Name, Scopes: splitList[auth.Scope](r.Scopes), Hash: r.Hash, Version: r.Version,
		CreatedAt: toMicros(r.CreatedAt), UpdatedAt: toMicros(r.UpdatedAt), ExpiresAt: toMicros(r.ExpiresAt),
		LastUsedAt: toMicrosOrNil(r.LastUsedAt), RevokedAt: toMicrosOrNil(r.RevokedAt), ExpiryAnnouncedAt: toMicrosOrNil(r.ExpiryAnnouncedAt),
	}
}
