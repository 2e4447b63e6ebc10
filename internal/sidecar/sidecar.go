// Package sidecar runs a program of any language as an instance of a service: it starts the program,
// registers it once it answers its health check, renews its lease, and takes it out of the
// registry before it stops.
//
//	start program -> check passes -> registered -> stop: drain, deregister, SIGTERM, SIGKILL -> exit code
//	                                            -> program ends: deregister               -> exit code
//
// SIGHUP is passed on to the program. The program runs without the registry: while the registry cannot be reached,
// registering is tried again. Only the sidecar has the API key. If the sidecar itself is killed, the program runs
// on, and its lease expires.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/client"
)

// Config says what is run, and as what. All but Check must be given.
type Config struct {
	Command  []string // the program and its arguments
	Environ  []string // of the program
	Registry *client.Client
	Instance client.Registration
	Check    string        // path of the health check behind the instance's URL; "" if it has none
	StopTime time.Duration // that the program has to end after SIGTERM, before SIGKILL
	Log      *slog.Logger
}

// sidecar is one run of a program.
type sidecar struct {
	cfg     Config
	program *exec.Cmd
	ended   chan struct{} // closed once the program has ended
}

// Run runs the program until it ends, or ctx does, or another process registers the instance. It returns the exit code of the
// program, 128 and the number of the signal if one ended it. The error says why it could not be run or
// registered; the program has ended by then.
func Run(ctx context.Context, cfg Config) (exitCode int, err error) {
	s := &sidecar{cfg: cfg, ended: make(chan struct{})}
	if err := s.start(ctx); err != nil {
		return 1, err
	}
	registered, err := s.register(ctx)
	switch {
	case err != nil:
		s.stop()
		return 1, err
	case registered == nil: // there was no time for it
		return s.stop(), nil
	}
	defer s.cfg.Registry.Close()
	select {
	case <-ctx.Done():
	case <-s.ended:
	case <-registered.Done():
		if err := registered.Err(); client.Code(err) == client.CodeStaleIncarnation {
			s.stop()
			return 1, fmt.Errorf("another process has registered %s: %w", cfg.Instance.Instance, err)
		}
		s.cfg.Log.Error("the registry has removed the instance; the program runs on without it", "error", registered.Err())
		select {
		case <-ctx.Done():
		case <-s.ended:
		}
	}
	if err := registered.Close(context.WithoutCancel(ctx)); err != nil {
		s.cfg.Log.Warn("the instance is still registered, and will be critical once its lease expires", "error", err)
	}
	return s.stop(), nil
}

// start starts the program in a process group of its own: a SIGINT of the terminal must reach it after the instance has
// drained, and not at once.
func (s *sidecar) start(ctx context.Context) error {
	s.program = exec.CommandContext(context.WithoutCancel(ctx), s.cfg.Command[0], s.cfg.Command[1:]...)
	s.program.Env = s.cfg.Environ
	s.program.Stdin, s.program.Stdout, s.program.Stderr = os.Stdin, os.Stdout, os.Stderr
	s.program.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	if err := s.program.Start(); err != nil {
		return fmt.Errorf("start the program: %w", err)
	}
	go func() {
		defer close(s.ended)
		_ = s.program.Wait() // its state is read by stop
	}()
	go s.passOn(hangups)
	return nil
}

// passOn has the program get the signals: of a SIGHUP it alone knows whether it reloads or ends.
func (s *sidecar) passOn(signals <-chan os.Signal) {
	for {
		select {
		case <-s.ended:
			return
		case sig := <-signals:
			_ = syscall.Kill(-s.program.Process.Pid, sig.(syscall.Signal)) //nolint:forcetypeassert // it is one; fails only if the program has ended
		}
	}
}

// register registers the instance once the check passes. The result is nil if ctx or the program ends before that.
func (s *sidecar) register(ctx context.Context) (*client.Registered, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if !s.awaitCheck(ctx) {
		return nil, nil
	}
	registered, err := s.cfg.Registry.Register(ctx, s.cfg.Instance)
	if client.Code(err) == client.CodeServiceNotFound {
		if err = s.defineService(ctx); err == nil {
			registered, err = s.cfg.Registry.Register(ctx, s.cfg.Instance)
		}
	}
	if err != nil && ctx.Err() != nil {
		return nil, nil
	}
	return registered, err
}

// defineService creates the service with the check; a service that exists keeps what its owner has said of it.
func (s *sidecar) defineService(ctx context.Context) error {
	service := client.Service{Name: s.cfg.Instance.Service}
	if s.cfg.Check != "" {
		service.HealthCheck = &client.HealthCheck{Path: s.cfg.Check}
	}
	return s.cfg.Registry.DefineService(ctx, service)
}

// Times of the check before the instance is registered.
const (
	checkPause   = 250 * time.Millisecond
	checkTimeout = 2 * time.Second // as that of the registry
)

// awaitCheck waits until the program answers its health check, and reports false if ctx ends first. It says so once if
// that takes long.
func (s *sidecar) awaitCheck(ctx context.Context) bool {
	if s.cfg.Check == "" {
		return true
	}
	checks := &http.Client{Timeout: checkTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer checks.CloseIdleConnections()
	url := strings.TrimSuffix(s.cfg.Instance.URL, "/") + s.cfg.Check
	slow := time.After(10 * time.Second)
	for {
		err := check(ctx, checks, url)
		if err == nil {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-slow:
			s.cfg.Log.Warn("the program does not pass its health check yet; it is registered once it does", "url", url, "error", err)
		case <-time.After(checkPause):
		}
	}
}

func check(ctx context.Context, checks *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := checks.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // the status is all that counts
	if resp.StatusCode >= http.StatusBadRequest {
		return errors.New(resp.Status)
	}
	return nil
}

// stop ends the program, if it has not ended, and returns its exit code.
func (s *sidecar) stop() (exitCode int) {
	group := -s.program.Process.Pid
	select {
	case <-s.ended:
	default:
		_ = syscall.Kill(group, syscall.SIGTERM) // fails only if it has ended
	}
	select {
	case <-s.ended:
	case <-time.After(s.cfg.StopTime):
		s.cfg.Log.Warn("the program has not ended in time, and is killed", "stop_time", s.cfg.StopTime)
		_ = syscall.Kill(group, syscall.SIGKILL)
		<-s.ended
	}
	if status, ok := s.program.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return s.program.ProcessState.ExitCode()
}
