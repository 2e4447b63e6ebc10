package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/backplane-dev/backplane/ent"
	entsigning "github.com/backplane-dev/backplane/ent/signingkey"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session/token"
)

// signingKeysLock is the row that a change of the signing keys locks: rows that do
// not exist yet cannot be locked.
const signingKeysLock = "gate.signing_keys"

// SigningKeys implements token.KeyStore.
func (s Sessions) SigningKeys(ctx context.Context) ([]*token.SigningKey, error) {
	keys, err := signingKeys(ctx, s.db.client)
	if err != nil {
		return nil, fmt.Errorf("read signing keys: %w", s.db.translateError(ctx, err))
	}
	return keys, nil
}

func signingKeys(ctx context.Context, c *ent.Client) ([]*token.SigningKey, error) {
	rows, err := c.SigningKey.Query().Order(ent.Asc(entsigning.FieldSignsAt, entsigning.FieldID)).All(ctx)
	return mapSlice(rows, func(r *ent.SigningKey) *token.SigningKey {
		return &token.SigningKey{ID: r.ID, Sealed: r.Sealed, CreatedAt: toMicros(r.CreatedAt), SignsAt: toMicros(r.SignsAt)}
	}), err
}

// UpdateSigningKeys implements token.KeyStore.
func (s Sessions) UpdateSigningKeys(ctx context.Context, fn func([]*token.SigningKey) (*token.SigningKey, []string, error),
) (after []*token.SigningKey, err error) {
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		if err := t.lockSetting(ctx, signingKeysLock); err != nil {
			return err
		}
		keys, err := signingKeys(ctx, t.ent)
		if err != nil {
			return err
		}
		add, drop, err := fn(keys)
		if err != nil {
			return err
		}
		if after = keys; add == nil && len(drop) == 0 {
			return nil
		}
		if err := t.saveSigningKeys(ctx, add, drop); err != nil {
			return err
		}
		after, err = signingKeys(ctx, t.ent)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update signing keys: %w", err)
	}
	return after, nil
}

func (t *tx) saveSigningKeys(ctx context.Context, add *token.SigningKey, drop []string) error {
	t.dirty = true
	if len(drop) > 0 {
		if _, err := t.ent.SigningKey.Delete().Where(entsigning.IDIn(drop...)).Exec(ctx); err != nil {
			return err
		}
	}
	if add == nil {
		return nil
	}
	t.recordEvents(add.TakeEvents())
	return t.ent.SigningKey.Create().SetID(add.ID).SetSealed(add.Sealed).SetCreatedAt(toMicros(add.CreatedAt)).SetSignsAt(toMicros(add.SignsAt)).Exec(ctx)
}

// Secrets implements secrets.Store.
type Secrets struct{ db *DB }

var _ secrets.Store = Secrets{}

// Secrets returns the store of sealed secrets.
func (db *DB) Secrets() Secrets { return Secrets{db} }

// Secret implements secrets.Store.
func (s Secrets) Secret(ctx context.Context, name string, fresh []byte) ([]byte, error) {
	return s.writeThenRead(ctx, name, `INSERT INTO settings (name, number, value) VALUES (?, 0, ?) ON CONFLICT (name) DO NOTHING`, secretName(name), fresh)
}

// StoredSecret implements secrets.Store.
func (s Secrets) StoredSecret(ctx context.Context, name string) ([]byte, error) {
	row, err := s.db.client.Setting.Get(ctx, secretName(name))
	switch {
	case ent.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("secret %s: %w", name, s.db.translateError(ctx, err))
	}
	return row.Value, nil
}

// ReplaceSecret implements secrets.Store.
func (s Secrets) ReplaceSecret(ctx context.Context, name string, old, next []byte) ([]byte, error) {
	return s.writeThenRead(ctx, name, `UPDATE settings SET value = ? WHERE name = ? AND value = ?`, next, secretName(name), old)
}

// writeThenRead runs a statement on a secret and returns what is stored then.
func (s Secrets) writeThenRead(ctx context.Context, name, statement string, args ...any) (stored []byte, err error) {
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		if _, err := t.exec(ctx, statement, args...); err != nil {
			return err
		}
		_, err := t.queryRow(ctx, `SELECT value FROM settings WHERE name = ?`, []any{secretName(name)}, &stored)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", name, err)
	}
	return slices.Clone(stored), nil
}

func secretName(name string) string { return "secret." + name }
