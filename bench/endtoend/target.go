package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// target is a process that answers requests.
type target struct {
	name     string
	addr     string
	pid      int
	database string // its database in PostgreSQL; empty for none
	cmd      *exec.Cmd
	ended    chan struct{}
	requests map[string]func(int) request // by workload

	signsIn  bool
	tokens   []string // of several callers
	signedIn time.Time
}

// How long a process may take to become ready, and to stop.
const (
	readyLimit = 2 * time.Minute
	stopLimit  = 20 * time.Second
)

// start starts the process and waits until it is ready.
func (t *target) start(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	t.cmd, t.pid, t.ended = cmd, cmd.Process.Pid, make(chan struct{})
	go func() {
		defer close(t.ended)
		_ = cmd.Wait() // its log says why it ended
	}()
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		_, err := t.once(ctx, get("/readyz"))
		if err == nil {
			return nil
		}
		select {
		case <-t.ended:
			return fmt.Errorf("it ended at once")
		default:
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("it is not ready after %v: %w", readyLimit, err)
		}
	}
}

// stop ends the process; it may be called more than once.
func (t *target) stop() {
	if t.cmd == nil {
		return
	}
	_ = t.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-t.ended:
	case <-time.After(stopLimit):
		_ = t.cmd.Process.Kill()
		<-t.ended
	}
	t.cmd = nil
}

// startPeer starts this program as what the product is compared with.
func (t *target) startPeer(ctx context.Context, database string) error {
	port, err := local.FreePort()
	if err != nil {
		return err
	}
	t.addr = local.Address(port)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), peerEnv+"="+t.addr, peerDatabaseEnv+"="+database)
	cmd.Stderr = os.Stderr
	return t.start(ctx, cmd)
}

// once sends a request that must succeed, and returns the body of the response.
func (t *target) once(ctx context.Context, r request) ([]byte, error) {
	c, err := dial(ctx, t.addr)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	status, body, err := c.send(r, t.token(0))
	if err == nil && status >= 300 {
		err = fmt.Errorf("%s %s: the server answered %d %.300s", r.method, r.path, status, body)
	}
	return body, err
}

// ask sends an operation that must succeed, and returns its data.
func (t *target) ask(ctx context.Context, query string, variables map[string]any) (map[string]any, error) {
	text, err := t.once(ctx, graphql(query, variables))
	if err != nil {
		return nil, err
	}
	var response struct {
		Data   map[string]any
		Errors []any
	}
	if err := json.Unmarshal(text, &response); err != nil || len(response.Errors) > 0 {
		return nil, fmt.Errorf("the server answered %.300s: %w", text, err)
	}
	return response.Data, nil
}

// token returns an access token for the connection of a number; empty without any.
func (t *target) token(connection int) string {
	if len(t.tokens) == 0 {
		return ""
	}
	return t.tokens[connection%len(t.tokens)]
}
