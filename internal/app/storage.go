package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/backplane-dev/backplane/internal/backoff"
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

// OpenServedDatabase is OpenDatabase for a server. An SQLite file is served by one process: a second one is refused, before it
// migrates anything.
func OpenServedDatabase(ctx context.Context, env Env, migrate bool) (*store.DB, func(), error) {
	unlock, err := lockDatabase(env)
	if err != nil {
		return nil, nil, err
	}
	db, err := OpenDatabase(ctx, env, migrate)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	closeDatabase := func() {
		_ = db.Close() // nothing is left to be lost
		unlock()
	}
	record := db.NewLogRecord()
	if record == nil {
		return db, closeDatabase, nil
	}
	if err := record.Verify(ctx); err != nil {
		closeDatabase()
		return nil, nil, err
	}
	return db, func() {
		_ = record.Write(context.WithoutCancel(ctx)) // without it a copy of the last second's state would not be noticed
		closeDatabase()
	}, nil
}

// lockDatabase locks an SQLite file for the process. Nodes on PostgreSQL need no lock.
func lockDatabase(env Env) (unlock func(), err error) {
	path, embedded := env.Config.Database.SQLite()
	if !embedded {
		return func() {}, nil
	}
	lock, err := store.LockFile(path)
	if _, used := errors.AsType[*store.FileInUseError](err); used {
		return nil, fmt.Errorf("%w: stop it, or set another file as BACKPLANE_DATABASE_URL; several nodes need PostgreSQL", err)
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Close() }, nil // the lock ends with the process, too
}

// servingLimit bounds how long RenewRestoredTimeline waits for the lease of a node that was killed: longer than it lasts.
const servingLimit = 10 * time.Second

// RenewRestoredTimeline begins another timeline in a database that was restored. It is refused while a server serves the
// database, which would go on with what it read before.
func RenewRestoredTimeline(ctx context.Context, env Env, db *store.DB) error {
	unlock, err := lockDatabase(env)
	if err != nil {
		return fmt.Errorf("%w: migrate --after-restore is for a database that no server serves", err)
	}
	defer unlock()
	waiting, cancel := context.WithTimeout(ctx, servingLimit)
	defer cancel()
	for ; ; backoff.Sleep(waiting, servingLimit/20) {
		owner, err := db.ServingNode(ctx)
		if err != nil {
			return err
		}
		if owner == "" {
			return db.RenewTimeline(ctx)
		}
		if waiting.Err() != nil {
			return fmt.Errorf("servers serve this database, among them %s: stop all of them first, since migrate --after-restore is for a database that no server serves", owner)
		}
	}
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
