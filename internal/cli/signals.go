package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/backplane-dev/backplane/internal/app"
)

// NotifyStop returns a context that the first SIGINT or SIGTERM cancels, with app.ErrInterrupted
// or app.ErrTerminated as its cause. A SIGINT after that ends the process at once.
func NotifyStop(parent context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cause := app.ErrTerminated
		if <-signals == os.Interrupt {
			cause = app.ErrInterrupted
		}
		signal.Reset(os.Interrupt) // before the stop begins: an operator who sees it may interrupt again
		cancel(cause)
	}()
	return ctx
}

// ignoreTerminal keeps a server alive whose log reader dies (SIGPIPE) or whose terminal is closed
// (SIGHUP).
func ignoreTerminal() { signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP) }

// absorbBrokenPipes is ignoreTerminal for SIGPIPE in a process that starts another one, which would inherit what is
// ignored: without a reader of the log, writing it fails.
func absorbBrokenPipes() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
