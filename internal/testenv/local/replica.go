package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Replica is a PostgreSQL server that can have a standby, or is one.
type Replica struct {
	*Server

	bin   string
	owner *syscall.Credential
}

// replicaSettings are those of a server that others follow. It syncs nothing: no machine fails here.
var replicaSettings = []string{
	"fsync=off", "full_page_writes=off", "shared_buffers=64MB", "autovacuum=off", "wal_level=replica", "hot_standby=on",
	"max_wal_senders=10", "wal_keep_size=512MB", "wal_receiver_timeout=5s", "wal_sender_timeout=5s",
}

// PostgresPrimary starts a server with an empty cluster and the settings, which standbys can follow.
func PostgresPrimary(settings ...string) (*Replica, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	owner, err := postgresOwner()
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return newReplica(bin, owner, func(dir string) error { return initCluster(bin, dir, owner) }, settings)
}

// Standby copies the server and starts the copy, which follows it. It returns once it does.
func (r *Replica) Standby(settings ...string) (*Replica, error) {
	copier := filepath.Join(r.bin, "pg_basebackup")
	if !isExecutable(copier) {
		return nil, fmt.Errorf("%w: %s", ErrMissing, copier)
	}
	host, port, err := net.SplitHostPort(r.Address())
	if err != nil {
		return nil, err
	}
	standby, err := newReplica(r.bin, r.owner, func(dir string) error {
		return runAs(r.owner, dir, copier, "-D", filepath.Join(dir, "data"), "-R", "-X", "stream", "-c", "fast", "--no-sync",
			"-h", host, "-p", port, "-U", "backplane")
	}, settings)
	if err != nil {
		return nil, err
	}
	return standby, standby.await(func() error {
		return r.expect(`SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')`)
	})
}

func newReplica(bin string, owner *syscall.Credential, fill func(dir string) error, settings []string) (*Replica, error) {
	dir, err := workspace("postgres", owner)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	err = fill(dir)
	if err == nil {
		var s *Server
		if s, err = servePostgres(bin, dir, owner, append(append([]string{}, replicaSettings...), settings...)...); err == nil {
			return &Replica{s, bin, owner}, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("start PostgreSQL of %s: %w", bin, err), os.RemoveAll(dir))
}

// Address returns the host and port of the server.
func (r *Replica) Address() string {
	u, err := url.Parse(r.URL)
	if err != nil {
		return ""
	}
	return u.Host
}

// Promote makes a standby a primary, and returns once it is one.
func (r *Replica) Promote() error {
	if err := r.Exec(`SELECT pg_promote(false)`); err != nil { // a query that waits would itself be in the way of what is still to be replayed
		return err
	}
	return r.await(func() error { return r.expect(`SELECT NOT pg_is_in_recovery()`) })
}

// Exec runs statements one by one, each in a transaction of its own.
func (r *Replica) Exec(statements ...string) error {
	return r.connect(func(ctx context.Context, conn *pgx.Conn) error {
		for _, s := range statements {
			if _, err := conn.Exec(ctx, s); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
}

// Synchronize has every COMMIT of the server wait for its standby.
func (r *Replica) Synchronize() error {
	if err := r.Exec(`ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`); err != nil {
		return err
	}
	return r.await(func() error {
		return r.expect(`SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')`)
	})
}

// SetReadOnly makes the server refuse writes, also in sessions that are open.
func (r *Replica) SetReadOnly() error {
	return r.Exec(`ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`)
}

// SetWritable is the reverse of SetReadOnly.
func (r *Replica) SetWritable() error {
	return r.Exec(`ALTER SYSTEM RESET default_transaction_read_only`, `SELECT pg_reload_conf()`)
}

// errNotYet says that what a query asks for is not so.
var errNotYet = errors.New("not yet")

// expect returns errNotYet unless the query answers true.
func (r *Replica) expect(query string) error {
	return r.connect(func(ctx context.Context, conn *pgx.Conn) error {
		var yes bool
		if err := conn.QueryRow(ctx, query).Scan(&yes); err != nil {
			return err
		}
		if !yes {
			return fmt.Errorf("%s: %w", query, errNotYet)
		}
		return nil
	})
}

func (r *Replica) connect(fn func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.URL)
	if err != nil {
		return err
	}
	return errors.Join(fn(ctx, conn), conn.Close(ctx))
}
