package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/ent"
	entsession "github.com/backplane-dev/backplane/ent/session"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
)

// UpdateSession implements session.Sessions.
func (s Sessions) UpdateSession(ctx context.Context, cl claim.Claim, id uid.Session, fn func(*session.Session) error) (*session.Session, error) {
	out, err := changeInTx(ctx, s.db, cl, s.readSession, func(t *tx) (*session.Session, error) {
		row, err := t.ent.Session.Query().Where(entsession.ID(id), t.forUpdate).Only(ctx)
		if err != nil {
			return nil, orMissing(err, session.NotFound())
		}
		t.setResultObject(string(id), row.Version)
		v := toSession(row)
		if err := fn(v); err != nil {
			return nil, err
		}
		if v.Version == row.Version {
			return toSession(row), nil
		}
		t.recordEvents(v.TakeEvents())
		t.setResultObject(string(id), v.Version)
		return v, t.saveSession(ctx, v)
	})
	if err != nil {
		return nil, fmt.Errorf("update session %s: %w", id, err)
	}
	return out, nil
}

func (t *tx) insertSession(ctx context.Context, v *session.Session) error {
	if v == nil {
		return nil
	}
	t.touchUncachedRow(session.SessionEntity.Name, string(v.ID), v.Version)
	return t.ent.Session.Create().SetID(v.ID).SetUserID(v.UserID).SetAddress(v.Address).SetUserAgent(v.UserAgent).
		SetGeneration(v.Generation).SetNonce(v.Nonce).SetVersion(v.Version).SetCreatedAt(toMicros(v.CreatedAt)).SetUpdatedAt(toMicros(v.UpdatedAt)).
		SetLastUsedAt(toMicros(v.LastUsedAt)).SetExpiresAt(toMicros(v.ExpiresAt)).SetNillableRevokedAt(toMicrosOrNil(v.RevokedAt)).Exec(ctx)
}

func (t *tx) saveSession(ctx context.Context, v *session.Session) error {
	t.touchUncachedRow(session.SessionEntity.Name, string(v.ID), v.Version)
	truncateSessionTimes(v)
	return t.ent.Session.Update().Where(entsession.ID(v.ID)).SetAddress(v.Address).SetUserAgent(v.UserAgent).
		SetGeneration(v.Generation).SetNonce(v.Nonce).SetVersion(v.Version).SetUpdatedAt(v.UpdatedAt).
		SetLastUsedAt(v.LastUsedAt).SetExpiresAt(v.ExpiresAt).SetNillableRevokedAt(v.RevokedAt).Exec(ctx)
}

// SessionWithAccount implements session.Sessions.
func (s Sessions) SessionWithAccount(ctx context.Context, id uid.Session) (*session.Session, *session.Account, error) {
	v, a := &session.Session{}, &session.Account{}
	var created, updated, used, expires instant
	var revoked *instant
	account, complete := accountScanTargets(a)
	found, err := s.db.readConn().queryRow(ctx, `SELECT s.id, s.user_id, s.address, s.user_agent, s.generation, s.nonce, s.version,
			s.created_at, s.updated_at, s.last_used_at, s.expires_at, s.revoked_at, `+accountColumns+`
		FROM sessions s JOIN users u ON u.id = s.user_id LEFT JOIN credentials c ON c.user_id = u.id WHERE s.id = ?`, []any{string(id)},
		append([]any{
			&v.ID, &v.UserID, &v.Address, &v.UserAgent, &v.Generation, &v.Nonce, &v.Version, &created, &updated, &used, &expires, &revoked,
		}, account...)...)
	if err == nil && !found {
		err = session.NotFound()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the standing of session %s: %w", id, s.db.translateError(ctx, err))
	}
	complete()
	v.CreatedAt, v.UpdatedAt, v.LastUsedAt, v.ExpiresAt, v.RevokedAt = created.Time, updated.Time, used.Time, expires.Time, revoked.orNil()
	return v, a, nil
}

// SessionsByIDs implements session.Sessions.
func (s Sessions) SessionsByIDs(ctx context.Context, ids []uid.Session) (map[uid.Session]*session.Session, error) {
	found := make(map[uid.Session]*session.Session, len(ids))
	for some := range slices.Chunk(ids, maxIDs) {
		rows, err := s.db.client.Session.Query().Where(entsession.IDIn(some...)).All(ctx)
		if err != nil {
			return nil, fmt.Errorf("read sessions: %w", s.db.translateError(ctx, err))
		}
		for _, row := range rows {
			found[row.ID] = toSession(row)
		}
	}
	return found, nil
}

func (s Sessions) readSession(ctx context.Context, id uid.Session) (*session.Session, error) {
	found, err := s.SessionsByIDs(ctx, []uid.Session{id})
	if err == nil && found[id] == nil {
		err = session.NotFound()
	}
	return found[id], err
}

// LiveSessions implements session.Sessions.
func (s Sessions) LiveSessions(ctx context.Context, user uid.User, at time.Time, limit int) ([]*session.Session, error) {
	rows, err := s.db.client.Session.Query().
		Where(entsession.UserID(user), entsession.RevokedAtIsNil(), entsession.ExpiresAtGT(toMicros(at))).
		Order(ent.Desc(entsession.FieldLastUsedAt, entsession.FieldID)).Limit(limit).All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read live sessions: %w", s.db.translateError(ctx, err))
	}
	return mapSlice(rows, toSession), nil
}

// Sweep implements session.Sessions. It passes over rows that others hold.
func (s Sessions) Sweep(ctx context.Context, ended, now time.Time, limit int) (int, error) {
	var removed int64
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		removed, t.dirty = 0, true
		for _, sweep := range []struct {
			table, key, condition string
			before                time.Time
		}{
			{"sessions", "id", "expires_at < ?", ended},
			{"sessions", "id", "revoked_at < ?", ended},
			{"api_keys", "id", "expires_at < ?", ended},
			{"api_keys", "id", "revoked_at < ?", ended},
			{"throttles", "name", "ends_at < ?", now},
		} {
			n, err := t.exec(ctx, fmt.Sprintf(`DELETE FROM %[1]s WHERE %[2]s IN (SELECT %[2]s FROM %[1]s WHERE %[3]s LIMIT ?%[4]s)`,
				sweep.table, sweep.key, sweep.condition, t.lockClause("FOR UPDATE SKIP LOCKED")), toMicros(sweep.before), int64(limit)-removed)
			if err != nil {
				return err
			}
			if removed += n; sweep.table != "throttles" && removed == int64(limit) {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	return int(removed), nil
}

func toSession(r *ent.Session) *session.Session {
	v := &session.Session{
		ID: r.ID, UserID: r.UserID, Address: r.Address, UserAgent: r.UserAgent, Generation: r.Generation, Nonce: r.Nonce, Version: r.Version,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, LastUsedAt: r.LastUsedAt, ExpiresAt: r.ExpiresAt, RevokedAt: r.RevokedAt,
	}
	truncateSessionTimes(v)
	return v
}

func truncateSessionTimes(v *session.Session) {
	for _, t := range []*time.Time{&v.CreatedAt, &v.UpdatedAt, &v.LastUsedAt, &v.ExpiresAt} {
		*t = toMicros(*t)
	}
	v.RevokedAt = toMicrosOrNil(v.RevokedAt)
}
