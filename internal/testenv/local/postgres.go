package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// installs are the places besides PATH where packages put the server's
// binaries: Debian, Red Hat, a build from source, Homebrew.
var installs = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
}

// Postgres starts a PostgreSQL server with an empty cluster. It returns
// ErrMissing if there are no binaries to start.
func Postgres() (*Server, error) { return newPostgres(startPostgres) }

// DurablePostgres is Postgres with the settings of a fresh installation, so that a commit waits for
// the disk: for measurements.
func DurablePostgres() (*Server, error) {
	return newPostgres(func(bin, dir string, owner *syscall.Credential) (*Server, error) {
		if err := initCluster(bin, dir, owner); err != nil {
			return nil, err
		}
		return servePostgres(bin, dir, owner, "max_connections=300")
	})
}

func newPostgres(start func(bin, dir string, owner *syscall.Credential) (*Server, error)) (*Server, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	owner, err := postgresOwner()
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	dir, err := workspace("postgres", owner)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s, err := start(bin, dir, owner)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL of %s: %w", bin, err), os.RemoveAll(dir))
	}
	return s, nil
}

func startPostgres(bin, dir string, owner *syscall.Credential) (*Server, error) {
	if err := initCluster(bin, dir, owner); err != nil {
		return nil, err
	}
	return servePostgres(bin, dir, owner, "fsync=off", "synchronous_commit=off", "full_page_writes=off",
		"max_connections=500", "shared_buffers=128MB", "autovacuum=off")
}

// initCluster makes the files of an empty cluster.
func initCluster(bin, dir string, owner *syscall.Credential) error {
	return runAs(owner, dir, filepath.Join(bin, "initdb"), "-D", filepath.Join(dir, "data"), "-U", "backplane", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
}

// runAs runs a command in dir as owner.
func runAs(owner *syscall.Credential, dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: owner}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out)
	}
	return nil
}

// servePostgres starts a server with the settings on the files in dir.
func servePostgres(bin, dir string, owner *syscall.Credential, settings ...string) (*Server, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	command := []string{filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data"), "-k", dir, "-h", "127.0.0.1", "-p", strconv.Itoa(port)}
	for _, setting := range settings {
		command = append(command, "-c", setting)
	}
	kept, err := keep(dir, owner, "QUIT", command...) // ends at once, without a checkpoint
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "postgres://backplane@" + Address(port) + "/postgres?sslmode=disable", kept: kept}
	if err := s.await(func() error { return pingPostgres(s.URL) }); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func pingPostgres(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// postgresBin returns the directory with the newest server that is installed.
func postgresBin() (string, error) {
	var found []string
	for _, pattern := range installs {
		dirs, _ := filepath.Glob(pattern) // the patterns are well formed
		found = append(found, dirs...)
	}
	slices.SortFunc(found, func(a, b string) int { return versionIn(b) - versionIn(a) })
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			found = slices.Insert(found, 0, filepath.Dir(path))
		}
	}
	for _, dir := range found {
		if isExecutable(filepath.Join(dir, "initdb")) && isExecutable(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: no initdb and postgres in PATH or %s", ErrMissing, strings.Join(installs, ", "))
}

// versionIn returns the first number in a path, or 0.
func versionIn(path string) int {
	digits := func(r rune) bool { return r < '0' || r > '9' }
	for _, part := range strings.FieldsFunc(path, digits) {
		n, _ := strconv.Atoi(part) // digits only
		return n
	}
	return 0
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// postgresOwner returns the user to run PostgreSQL and its pooler as.
func postgresOwner() (*syscall.Credential, error) { return unprivileged("postgres", "nobody") }

// unprivileged returns the user to run a server as that refuses to run as root: the
// first of the names that exists, or nil if we are not root anyway.
func unprivileged(names ...string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("it refuses to run as root, and there is none of the users %s", strings.Join(names, ", "))
}
