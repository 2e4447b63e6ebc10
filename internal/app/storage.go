package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/store"
)

// OpenDatabase opens the database, which must be up to date afterwards. An SQLite
// file is always migrated, as only this process uses it. PostgreSQL serves other
// nodes too, so there the caller asks for the migration. The caller closes it.
func OpenDatabase(ctx context.Context, env Env, migrate bool) (*store.DB, error) {
	path, embedded := env.Config.Database.SQLite()
	if embedded {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("make the directory of the database: %w", err)
		}
	}
	db, err := store.Open(ctx, store.Config{URL: string(env.Config.Database), Migrate: migrate || embedded, AssignLegacyIDs: env.Config.AssignLegacyID})
	if err != nil {
		return nil, err
	}
	if err := db.Ready(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// OpenSecrets unseals the secrets in the database with the operator's key. On
// SQLite a key file next to the database serves until the operator sets a key,
// which then takes over.
func OpenSecrets(ctx context.Context, env Env, db *store.DB) (*secrets.Sealer, error) {
	key, former := env.Config.SecretKey, []secrets.MasterKey(nil)
	if path, embedded := env.Config.Database.SQLite(); embedded {
		file := filepath.Join(filepath.Dir(path), "secret.key")
		if _, err := os.Stat(file); err == nil || !key.IsSet() {
			stored, err := secrets.MasterKeyFromFile(file)
			if err != nil {
				return nil, err
			}
			former = append(former, stored)
		}
		if !key.IsSet() {
			key = former[0]
		}
	}
	if !key.IsSet() {
		env.Log.WarnContext(ctx, "BACKPLANE_SECRET_KEY is not set: secrets are stored unencrypted, readable by anyone with access to the database")
	}
	return secrets.OpenSealer(ctx, db.Secrets(), key, former...)
}
