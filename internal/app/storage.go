package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/store"
)

// OpenDatabase opens the database, which must be up to date afterwards. An SQLite
// file is always migrated, as only this process uses it. PostgreSQL serves other
// nodes too, so there the caller asks for the migration. The caller closes it.
func OpenDatabase(ctx context.Context, env Env, migrate bool) (*store.DB, error) {
	_, embedded := env.Config.Database.SQLite()
	return openReady(ctx, env, migrate || embedded)
}

func openReady(ctx context.Context, env Env, migrate bool) (*store.DB, error) {
	conns := env.Config.Conns
	if _, embedded := env.Config.Database.SQLite(); embedded {
		conns = 0 // its readers are no connections to a server
	}
	db, err := store.Open(ctx, store.Config{
		URL: string(env.Config.Database), Migrate: migrate, AssignLegacyIDs: env.Config.AssignLegacyID, Log: env.Log,
		MaxConns: conns, CredentialConns: env.Config.CredentialConns,
	})
	if err != nil {
		return nil, err
	}
	if err := db.Ready(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if newer, err := db.NewerMigration(ctx); err == nil && newer != "" {
		env.Log.InfoContext(ctx, "the database has been migrated by a newer release, which is compatible with this one", "migration", newer)
	}
	return db, nil
}

// OpenExistingDatabase opens a database that must exist and be up to date, and changes nothing.
func OpenExistingDatabase(ctx context.Context, env Env) (*store.DB, error) {
	if path, embedded := env.Config.Database.SQLite(); embedded {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("there is no database yet; backplane migrate makes one: %w", err)
		}
	}
	return openReady(ctx, env, false)
}

// OpenSecrets unseals the secrets in the database with the operator's key. On
// SQLite a key file next to the database serves until the operator sets a key,
// which then takes over.
func OpenSecrets(ctx context.Context, env Env, db *store.DB) (*secrets.Sealer, error) {
	key, former, err := masterKeys(env, true)
	if err != nil {
		return nil, err
	}
	if !key.IsSet() {
		env.Log.WarnContext(ctx, "BACKPLANE_SECRET_KEY is not set: secrets are stored unencrypted, readable by anyone with access to the database")
	}
	return secrets.OpenSealer(ctx, db.Secrets(), key, former...)
}

// masterKeys returns the operator's key, and the one that a key file next to an SQLite
// database holds, which it replaces or stands in for. It makes the file only if create is set.
func masterKeys(env Env, create bool) (key secrets.MasterKey, former []secrets.MasterKey, err error) {
	key = env.Config.SecretKey
	path, embedded := env.Config.Database.SQLite()
	if !embedded {
		return key, nil, nil
	}
	file := keyFile(path)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) && (key.IsSet() || !create) {
		return key, nil, nil
	}
	stored, err := secrets.MasterKeyFromFile(file)
	switch {
	case err != nil:
		return key, nil, err
	case !key.IsSet():
		return stored, nil, nil
	}
	return key, []secrets.MasterKey{stored}, nil
}

// keyFile returns the path of the key file of an SQLite database: next to the file that the path
// leads to through symbolic links, so that every path to a database has its key. A key next to a
// link, where former versions put it, counts if there is no other.
func keyFile(path string) string {
	const name = "secret.key"
	beside := filepath.Join(filepath.Dir(path), name)
	target, err := filepath.EvalSymlinks(path)
	if err != nil { // the database is yet to be made
		link, errLink := os.Readlink(path)
		if errLink != nil {
			return beside
		}
		if target = link; !filepath.IsAbs(link) {
			target = filepath.Join(filepath.Dir(path), link)
		}
	}
	file := filepath.Join(filepath.Dir(target), name)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(beside); err == nil {
			return beside
		}
	}
	return file
}

// InspectSecrets returns how the secrets in the database are protected. It changes nothing.
func InspectSecrets(ctx context.Context, env Env, db *store.DB) (secrets.Protection, error) {
	key, former, err := masterKeys(env, false)
	if err != nil {
		return 0, err
	}
	return secrets.Inspect(ctx, db.Secrets(), key, former...)
}

// RotateMasterKey has the operator's key protect the secrets that old protects.
func RotateMasterKey(ctx context.Context, env Env, db *store.DB, old secrets.MasterKey) error {
	return secrets.Rewrap(ctx, db.Secrets(), env.Config.SecretKey, old)
}
