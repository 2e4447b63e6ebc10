// Package local starts private servers for tests from installed binaries, on
// loopback and in a temporary directory: PostgreSQL and Redis without fsync, and
// brokers (RabbitMQ, NATS, a Redis that keeps its data) that can be stopped and
// started again.
//
// Nothing that it starts outlives the process that asked for it, however that
// one ends: see keeper. Package local imports nothing of ours, so that the
// program which runs the tests builds even when the product does not.
package local

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// The environment variables by which a run of the tests tells each test binary
// what it has prepared.
const (
	PostgresURL = "BACKPLANE_TEST_POSTGRES_URL" // of a user that may create databases
	RedisURL    = "BACKPLANE_TEST_REDIS_URL"    // of a user that may flush databases
	LeftOut     = "BACKPLANE_TEST_LEFT_OUT"     // file to which each test that is left out adds a line
	Binary      = "BACKPLANE_TEST_BINARY"       // file of the server, which the first test that needs it builds
)

// ErrMissing says that a server's binaries are not installed.
var ErrMissing = errors.New("not installed")

// Server is a running private server.
type Server struct {
	URL  string // what clients connect to
	kept *keeper
}

// Stop ends the server, waits for its end and removes its data. It may be
// called more than once; nil is no server.
func (s *Server) Stop() {
	if s != nil {
		s.kept.stop()
	}
}

// startLimit bounds how long a server may take to accept connections. It takes
// well under a second, RabbitMQ five; a loaded machine gets the rest.
const startLimit = 3 * time.Minute

// await returns once ready does without an error, or explains by the server's
// own log why that will not happen.
func (s *Server) await(ready func() error) error {
	for deadline := time.Now().Add(startLimit); ; time.Sleep(5 * time.Millisecond) {
		err := ready()
		switch {
		case err == nil:
			return nil
		case s.kept.serverEnded():
			return fmt.Errorf("it ended at once and said: %s", s.kept.log())
		case time.Now().After(deadline):
			return fmt.Errorf("not ready after %v: %w; it said: %s", startLimit, err, s.kept.log())
		}
	}
}

// FreePort returns a free loopback port. It lies below the
// range from which systems take the ports of outgoing connections, so that
// the system gives it to no connection before it is used.
func FreePort() (int, error) {
	const low, high, tries = 15000, 32000, 100
	var last error
	for range tries {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", Address(port))
		if err == nil {
			return port, l.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("find a free port: %w", last)
}

// Address returns the loopback address of the port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// workspace makes a directory for a server that runs as owner; nil is us.
func workspace(name string, owner *syscall.Credential) (string, error) {
	dir, err := os.MkdirTemp("", "backplane-"+name+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	if owner != nil {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			return "", errors.Join(fmt.Errorf("give the directory to the server: %w", err), os.RemoveAll(dir))
		}
	}
	return filepath.Clean(dir), nil
}
