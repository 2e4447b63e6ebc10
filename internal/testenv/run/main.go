// Run runs a command, normally go test, with private servers at hand:
//
//	go run ./internal/testenv/run -- go test ./...
//
// It starts each server that the environment does not name, tells the command
// where they are, and stops them when the command ends. The tests share one build
// of the server. Tests that had to be
// left out are listed at the end. Of go test -json it shows a line for each package as it finishes, and what failing tests
// wrote. Its exit code is the command's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

func main() {
	command := os.Args[1:]
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		fmt.Fprintln(os.Stderr, "usage: run -- command [argument ...]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code, err := run(ctx, command, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests:", err)
	}
	os.Exit(code)
}

// run returns the exit code of the command, or 1 and why there is none.
func run(ctx context.Context, command []string, out io.Writer) (int, error) {
	leftOut, err := os.CreateTemp("", "backplane-left-out-")
	if err != nil {
		return 1, err
	}
	defer os.Remove(leftOut.Name())
	defer leftOut.Close()
	shared, err := os.MkdirTemp("", "backplane-run-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(shared)
	env, stop := servers(out)
	defer stop()
	code, err := execute(ctx, command, append(env, local.LeftOut+"="+leftOut.Name(), local.Binary+"="+filepath.Join(shared, "backplane")))
	if err != nil {
		return 1, err
	}
	notes, err := io.ReadAll(leftOut)
	fmt.Fprint(out, summary(string(notes)))
	return code, err
}

// servers starts the servers that the environment does not name and returns
// what to add to it. A server that does not start is no error here: the tests
// that need it try again, and then are left out or fail.
func servers(out io.Writer) (env []string, stop func()) {
	kinds := []struct {
		name, variable string
		start          func() (*local.Server, error)
	}{{"PostgreSQL", local.PostgresURL, local.Postgres}, {"Redis", local.RedisURL, local.Redis}}
	var started []*local.Server
	for _, k := range kinds {
		if os.Getenv(k.variable) != "" {
			continue
		}
		s, err := k.start()
		if err != nil {
			fmt.Fprintf(out, "going on without %s: %v\n", k.name, err)
			continue
		}
		started, env = append(started, s), append(env, k.variable+"="+s.URL)
	}
	return env, func() {
		for _, s := range started {
			s.Stop()
		}
	}
}

// execute runs the command in a process group of its own, so that an interrupt
// reaches all of it, and reaches it before its servers are gone.
func execute(ctx context.Context, command, env []string) (int, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if slices.Contains(command, "-json") {
		cmd.Stdout = newProgress(os.Stdout)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil // -1 if a signal ended it
	}
	if err != nil {
		return 1, fmt.Errorf("%s: %w", command[0], err)
	}
	return 0, nil
}
