package cli

import (
	"errors"
	"fmt"

	"github.com/backplane-dev/backplane/internal/config"
)

// The exit codes of the program. They are API.
const (
	exitOK       = 0
	exitFailure  = 1 // the command could not do its work
	exitUsage    = 2 // a mistake in the arguments, flags or settings: nothing was done
	exitFindings = 3 // doctor found problems
)

// usageError is a mistake in the arguments or flags.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// usagef returns a usageError.
func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// findingsError says that a command that checks has found problems.
type findingsError struct{ problems int }

func (e *findingsError) Error() string { return fmt.Sprintf("doctor found %d problems", e.problems) }

// exitCode returns the exit code for the outcome of a command.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*findingsError](err); ok {
		return exitFindings
	}
	_, usage := errors.AsType[*usageError](err)
	_, mistakes := errors.AsType[config.Mistakes](err)
	if usage || mistakes {
		return exitUsage
	}
	return exitFailure
}

// exitHelp explains the exit codes.
const exitHelp = "0 if the command succeeded, 1 if it failed, 2 for a mistake in the arguments, flags or settings, 3 if doctor found problems."
