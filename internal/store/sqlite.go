package store

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"entgo.io/ent/dialect"
	_ "modernc.org/sqlite" // the driver, in pure Go
)

// openSQLite opens a file with one connection for writes and several read-only ones. It
// creates the folder of the file if it is missing.
func openSQLite(cfg Config, path string) (*DB, error) {
	path = strings.TrimPrefix(path, "//")
	if path == "" || strings.Contains(path, ":memory:") {
		return nil, errors.New("a SQLite database needs a file, e.g. sqlite:data/backplane.db")
	}
	if strings.ContainsAny(path, "?#") {
		return nil, errors.New("the path of a SQLite database takes no parameters, and no ? or # in its name")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the database: %w", err)
	}
	info, err := keepPrivate(path)
	if err != nil {
		return nil, err
	}
	write, err := sql.Open("sqlite", sqliteDSN(cfg, path, "immediate", "foreign_keys(1)"))
	if err != nil {
		return nil, fmt.Errorf("open SQLite: %w", err)
	}
	write.SetMaxOpenConns(1)
	conns := cmp.Or(cfg.MaxConns, sqliteConns)
	read, err := openSQLiteReaders(cfg, path, conns)
	if err != nil {
		return nil, err
	}
	own, err := openSQLiteReaders(cfg, path, sqliteCredentialConns)
	if err != nil {
		return nil, err
	}
	logReader, err := openSQLiteReaders(cfg, path, 1)
	if err != nil {
		return nil, err
	}
	return &DB{
		cfg: cfg, dialect: dialect.SQLite, path: path, file: &openFile{path, info}, closed: new(atomic.Bool), storing: new(storing),
		read: read, write: write, readers: newPermits(conns, callerPart), writers: newPermits(1, 1),
		credentials: reservedPool{read: own, readers: newPermits(sqliteCredentialConns, credentialPart)},
		logReader:   reservedPool{read: logReader, readers: newPermits(1, 1)},
	}, nil
}

// openSQLiteReaders returns a pool of so many read-only connections to the file.
func openSQLiteReaders(cfg Config, path string, conns int) (*sql.DB, error) {
	read, err := sql.Open("sqlite", sqliteDSN(cfg, path, "deferred", "query_only(1)"))
	if err != nil {
		return nil, fmt.Errorf("open SQLite: %w", err)
	}
	read.SetMaxOpenConns(conns)
	read.SetMaxIdleConns(conns)
	return read, nil
}

// keepPrivate makes the file if it is missing, for its owner alone, and refuses one that others
// may read: it holds password hashes and tokens. SQLite gives the files beside it the same
// mode. Windows has no such mode bits: there they are not checked. It returns the identity of the file.
func keepPrivate(path string) (fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others may read the database %s (mode %04o): run `chmod 600 %s*`, and change the passwords if they may have been read", path, info.Mode().Perm(), path)
	}
	return info, nil
}

// sqliteDSN returns the URL with the pragmas of every connection. Times are stored as whole
// microseconds, which sort and compare as numbers. Transactions that write take
// the lock when they begin (immediate), so none fails half way.
func sqliteDSN(cfg Config, path, begin string, pragmas ...string) string {
	q := url.Values{
		"_txlock":              {begin},
		"_time_integer_format": {"unix_micro"},
		"_inttotime":           {"1"},
		"_pragma": append([]string{
			"busy_timeout(" + strconv.FormatInt(cfg.LockTimeout.Milliseconds(), 10) + ")",
			"journal_mode(WAL)",
			"synchronous(FULL)",
			"temp_store(MEMORY)", // a server may have no folder for temporary files
		}, pragmas...),
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}
