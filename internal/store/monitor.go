package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/store/pgserver"
)

// Times of a Monitor.
const (
	lookInterval = time.Second
	lookTimeout  = 2 * time.Second
	lookAge      = 5 * time.Second  // after which the result of a look says nothing any more
	probeAge     = 10 * time.Second // of its connection: a new one shows where the URL leads now
	failureAge   = 10 * time.Second // for how long a change that PostgreSQL could not store counts where the Monitor cannot try
)

// minFreeBytes is the room on the disk of an SQLite file below which it counts as full.
const minFreeBytes = 1 << 20

// Monitor looks once a second whether the database can store changes, one look for all that ask: readiness
// checks, metrics and doctor. It is safe for concurrent use.
//
// On PostgreSQL it asks for the role of the server, and so also finds a fail-over on a node that writes
// nothing. On SQLite it asks for the identity of the file and the room on the disk. On both, a change that could not be stored for
// want of room counts until something is stored that needs room, as other changes may need none: the Monitor tries.
type Monitor struct {
	db    *DB
	probe *pgserver.Pool // nil on SQLite
	last  atomic.Pointer[look]
}

// look is what a Monitor found.
type look struct {
	at  time.Time
	err error
}

// NewMonitor returns a Monitor that has not looked yet.
func (db *DB) NewMonitor() *Monitor {
	m := &Monitor{db: db}
	if db.isPostgres() {
		m.probe = db.server.OpenPool(pgserver.PoolConfig{Conns: 1, MaxAge: probeAge, Wary: true})
	}
	return m
}

// Run looks until ctx is cancelled.
func (m *Monitor) Run(ctx context.Context) error {
	if m.probe != nil {
		defer m.probe.Close()
	}
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		err := m.Look(ctx)
		if was := m.last.Swap(&look{time.Now(), err}); ctx.Err() == nil && (was == nil || (was.err == nil) != (err == nil)) {
			m.logChange(ctx, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m *Monitor) logChange(ctx context.Context, err error) {
	if err != nil {
		m.db.cfg.Log.ErrorContext(ctx, "the database cannot store changes: this node is not ready", "error", err)
		return
	}
	m.db.cfg.Log.InfoContext(ctx, "the database can store changes")
}

// The errors of a Monitor that knows nothing.
var (
	errNoLook   = errors.New("the database has not been asked yet: the server has just started")
	errLateLook = errors.New("the database did not answer in time")
)

// Writable returns nil if the database could store changes at the last look, else an Unavailable error.
func (m *Monitor) Writable() error {
	last := m.last.Load()
	switch {
	case last == nil:
		return unavailable.Because(errNoLook)
	case time.Since(last.at) > lookAge:
		return unavailable.Because(errLateLook)
	}
	return last.err
}

// Ready reports whether the database can store changes and is up to date: nil, or an Unavailable error
// whose cause says what to do.
func (m *Monitor) Ready(ctx context.Context) error {
	if err := m.Writable(); err != nil {
		return err
	}
	return m.db.Ready(ctx)
}

// Look reports whether the database can store changes now: nil, or an Unavailable error with the cause.
func (m *Monitor) Look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if m.probe != nil {
		if err := m.probe.PingContext(ctx); err != nil {
			return m.db.translateError(context.WithoutCancel(ctx), err)
		}
		if m.db.storing.failureWithin(0) == nil {
			return nil
		}
		return m.lookForRoom(ctx)
	}
	if err := m.db.file.check(); err != nil {
		return err
	}
	if m.db.storing.failureWithin(0) != nil {
		return m.db.probeSpace(ctx)
	}
	return checkDisk(m.db.path)
}

// CheckWritable is one Look, for commands that do not run a Monitor.
func (db *DB) CheckWritable(ctx context.Context) error {
	m := db.NewMonitor()
	if m.probe == nil {
		return m.Look(ctx)
	}
	defer m.probe.Close()
	if err := m.Look(ctx); err != nil {
		return err
	}
	return m.lookForRoom(ctx)
}

// lookForRoom reports whether PostgreSQL has room for changes. A role that may not create tables cannot try: then a
// change that could not be stored counts for a while.
func (m *Monitor) lookForRoom(ctx context.Context) error {
	switch err := m.takeRoom(ctx); {
	case err == nil:
		m.db.storing.succeeded()
		return nil
	case isOutOfSpace(err):
		return cannotStore.Because(err)
	}
	return m.db.storing.failureWithin(failureAge)
}

// takeRoom stores something that needs room in the PostgreSQL database, and leaves nothing.
func (m *Monitor) takeRoom(ctx context.Context) error {
	tx, err := m.probe.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // it removes the table; without it the end of the connection does
	for _, statement := range []string{
		`CREATE TABLE space_probe (filling text)`, `INSERT INTO space_probe SELECT repeat('x', 1000) FROM generate_series(1, 64)`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// checkDisk reports whether the disk of the file has room and can be written to.
func checkDisk(path string) error {
	free, readOnly, err := diskSpace(filepath.Dir(path))
	switch {
	case err != nil:
		return unavailable.Because(fmt.Errorf("look at the disk of the database: %w", err))
	case readOnly:
		return cannotStore.Because(fmt.Errorf("the file system of %s is mounted read-only", path))
	case free < minFreeBytes:
		return cannotStore.Because(fmt.Errorf("the disk of %s has only %d bytes left", path, free))
	}
	return nil
}

// probeSpace stores something that needs room in the SQLite file, and leaves nothing.
func (db *DB) probeSpace(ctx context.Context) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return db.translateError(ctx, err)
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	for _, statement := range []string{
		`CREATE TABLE space_probe (filling blob)`, `INSERT INTO space_probe VALUES (zeroblob(65536))`, `DROP TABLE space_probe`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return db.translateError(ctx, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return db.translateError(ctx, err)
	}
	db.storing.succeeded()
	return nil
}

// storing is whether the last change could be stored, for all copies of a DB.
type storing struct{ failure atomic.Pointer[look] }

func (s *storing) succeeded() {
	if s.failure.Load() != nil {
		s.failure.Store(nil)
	}
}

func (s *storing) failed(err error) { s.failure.Store(&look{time.Now(), err}) }

// failureWithin returns why the last change was not stored, if it was not within the time; 0 is at any time.
func (s *storing) failureWithin(d time.Duration) error {
	f := s.failure.Load()
	if f == nil || d > 0 && time.Since(f.at) > d {
		return nil
	}
	return f.err
}
