// Package store persists the domains and the event log in SQLite or PostgreSQL. It
// implements the Store of every domain and is the only package that knows tables,
// drivers and their errors. It is one package of more than 20 files, since one transaction
// may touch tables of several domains and ent has one client.
//
// Lists, reads by id and most changes of one row are ent builders. Plain SQL is used where a
// builder cannot express it or would take more statements: upserts with conditions, multi-row inserts, SKIP LOCKED, claims, leases, the
// sequencer and the event log. Migrations are generated from the ent schema for both.
//
// A change is one transaction, see inTx: the rows, the events that the domain
// recorded, the list of touched rows and the claim commit together or not at all.
// Locks are taken in one order, so that transactions wait for one another and do not deadlock:
//
//	claim, named lock (a row of settings), user, session or API key, order,
//	product, stocks by product id, counters (rows of settings), inserts
//
// On SQLite there is one writer and its transactions begin IMMEDIATE, so locks
// are not needed there and the helpers that take them do nothing. Times are
// UTC and whole microseconds in both, and text compares byte by byte.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/ent"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/store/pgserver"
)

// Config says which database and how to use it. Only URL is needed.
type Config struct {
	URL             string // sqlite:path or postgres://…
	Migrate         bool   // apply missing migrations when opening
	AssignLegacyIDs bool   // give every new user, product and order the next number as its legacy id

	MaxConns        int // connections to PostgreSQL, or readers of SQLite; default 11 and 8
	CredentialConns int // connections to PostgreSQL for reads of credentials besides; default 3. On SQLite they are 2

	LockTimeout   time.Duration // how long a statement waits for a lock; default 5 s
	StatementTime time.Duration // how long a statement may run on PostgreSQL; default 30 s
	IdleInTx      time.Duration // after which PostgreSQL ends a transaction that does nothing; default 10 s
	TxTime        time.Duration // how long a transaction may last in all; default 1 min

	Migrations  fs.FS              // in place of ent/migrate, for tests
	Now         func() time.Time   // for tests: what DB.Clock shows in place of the database's time
	WaryReads   bool               // looks at the role of PostgreSQL before each use of a connection, as after a second without use; for tests
	OnStatement func(query string) // called before each statement of the stores; for tests and traces
	Log         *slog.Logger       // default: none
}

func (c Config) withDefaults() Config {
	c.LockTimeout = cmp.Or(c.LockTimeout, 5*time.Second)
	c.StatementTime = cmp.Or(c.StatementTime, 30*time.Second)
	c.IdleInTx = cmp.Or(c.IdleInTx, 10*time.Second)
	c.TxTime = cmp.Or(c.TxTime, time.Minute)
	if c.Migrations == nil {
		c.Migrations = migrationFiles()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.MaxConns < 0 || c.CredentialConns < 0:
		return fmt.Errorf("store config: numbers of connections must not be negative, they are %d and %d", c.MaxConns, c.CredentialConns)
	case c.LockTimeout < 0 || c.StatementTime < 0 || c.IdleInTx < 0 || c.TxTime < 0:
		return errors.New("store config: a time-out must not be negative")
	}
	return nil
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	cfg     Config
	dialect string
	known   []migration      // of this program
	path    string           // of the SQLite file
	file    *openFile        // of SQLite
	server  *pgserver.Server // PostgreSQL
	clock   *dbclock.Clock
	read    pool     // queries outside of transactions
	write   pool     // transactions; on PostgreSQL the same as read
	readers *permits // of read
	writers *permits // of write; on PostgreSQL the same as readers
	client  *ent.Client
	lists   *ent.Client // as client, for lists and counts: their statements are planned for the values that they have
	hooks   Hooks
	closed  *atomic.Bool
	storing *storing

	credentials reservedPool // for reads of credentials: while all other connections are taken, callers are still authenticated
	logReader   reservedPool // for the node's reader of the event log, on which all requests depend once it is late
}

// pool is connections to the database: a *sql.DB, or a *pgserver.Pool.
type pool interface {
	entsql.ExecQuerier
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
	Conn(ctx context.Context) (*sql.Conn, error)
	PingContext(ctx context.Context) error
	Stats() sql.DBStats
	Close() error
}

// reservedPool is connections for some reads alone, in place of those of a DB.
type reservedPool struct {
	read    pool
	readers *permits
	client  *ent.Client
}

// Connections of a node. With those of the sequencer, the monitor and the notifier they are 19 on PostgreSQL, see
// Capacity: five nodes need 95 of the 97 that a server with its default of max_connections has for
// them. Reads of credentials are short, by a key or a user; the log has one reader.
const (
	postgresConns           = 11
	postgresCredentialConns = 3
	sqliteConns             = 8
	sqliteCredentialConns   = 2
)

// Open opens the database of cfg.URL and, if cfg.Migrate is set, applies the missing
// migrations. The caller closes it. An unknown scheme of the URL is refused.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	db, err := openDialect(cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	if err := db.connect(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func openDialect(cfg Config) (*DB, error) {
	kind, rest, _ := strings.Cut(cfg.URL, ":")
	switch kind {
	case "sqlite":
		return openSQLite(cfg, rest)
	case "postgres", "postgresql":
		return openPostgres(cfg)
	default:
		return nil, fmt.Errorf("a database URL starts with %q or %q, not with %.20q", "sqlite:", "postgres://", kind)
	}
}

func (db *DB) connect(ctx context.Context) (err error) {
	if db.known, err = readMigrations(db.cfg.Migrations, db.dialect); err != nil {
		return err
	}
	db.clock = db.newClock()
	db.client = ent.NewClient(ent.Driver(db.readConn().entDriver()))
	db.lists = ent.NewClient(ent.Driver(db.listConn().entDriver()))
	db.credentials.client = ent.NewClient(ent.Driver(db.withReads(db.credentials).readConn().entDriver()))
	if err := db.Ping(ctx); err != nil {
		if refused, ok := errors.AsType[*pgserver.RefusedError](err); ok {
			return refused
		}
		if db.path != "" {
			return fmt.Errorf("open the database %s: %w", db.path, err)
		}
		return err
	}
	if db.isPostgres() {
		if err := db.server.RefuseTransactionPooling(ctx); err != nil {
			return err
		}
	}
	if err := db.clock.Measure(ctx); err != nil {
		return err
	}
	if db.cfg.Migrate {
		return db.Migrate(ctx)
	}
	return nil
}

// Close waits for running queries and closes the database. It is safe to call
// twice.
func (db *DB) Close() error {
	if db.closed.Swap(true) {
		return nil
	}
	if !db.isPostgres() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, _ = db.write.ExecContext(ctx, `PRAGMA optimize`) // updates the statistics of the planner; a failure is harmless
	}
	return errors.Join(db.write.Close(), db.read.Close(), db.credentials.read.Close(), db.logReader.read.Close())
}

// Ping reports whether the database answers: nil or an Unavailable error.
func (db *DB) Ping(ctx context.Context) error {
	return db.translateError(ctx, db.read.PingContext(ctx))
}

// ServerEpoch returns the server epoch of the connections to PostgreSQL; 0 on SQLite.
func (db *DB) ServerEpoch() int64 {
	if !db.isPostgres() {
		return 0
	}
	return db.server.Epoch()
}

// Connections are those of a pool.
type Connections struct {
	Max, Open, Used int
	Waits           int64 // how often a call has waited for one
	Refusals        int64 // of operations, since too many calls waited for too long
}

// Connections returns the connections of the node by what they are for.
func (db *DB) Connections() map[string]Connections {
	all := map[string]Connections{}
	for name, p := range map[string]reservedPool{
		"read": {read: db.read, readers: db.readers}, "write": {read: db.write, readers: db.writers}, "credentials": db.credentials, "log reader": db.logReader,
	} {
		s, q := p.read.Stats(), p.readers.queue
		all[name] = Connections{s.MaxOpenConnections, s.OpenConnections, s.InUse, s.WaitCount + q.waits.Load(), q.refusals.Load()}
	}
	if db.isPostgres() {
		delete(all, "read") // the same as for writing
	}
	return all
}

// Dialect returns "sqlite3" or "postgres".
func (db *DB) Dialect() string { return db.dialect }

func (db *DB) isPostgres() bool { return db.dialect == dialect.Postgres }

func (db *DB) readConn() conn {
	return conn{ExecQuerier: statementObserver{db.read, db.cfg.OnStatement}, dialect: db.dialect, permits: db.readers}
}

func (db *DB) observeStatement(query string) {
	if db.cfg.OnStatement != nil {
		db.cfg.OnStatement(query)
	}
}

// withReads returns the database with the connections of the pool in place of those for reads.
// Transactions are the same.
func (db *DB) withReads(p reservedPool) *DB {
	own := *db
	own.read, own.readers, own.client = p.read, p.readers, p.client
	return &own
}

// Users returns the store of accounts.
func (db *DB) Users() Users { return Users{db} }

// Products returns the store of products.
func (db *DB) Products() Products { return Products{db} }

// Orders returns the store of orders.
func (db *DB) Orders() Orders { return Orders{db} }
