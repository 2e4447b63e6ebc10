package executor_test

import (
	"log/slog"
	"testing"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
)

// newExecutor returns an executor over the test schema without resolvers.
func newExecutor(tb testing.TB, cfg executor.Config) *executor.Executor {
	tb.Helper()
	return executorOver(tb, executortest.New(nil, nil, nil), cfg)
}

func executorOver(tb testing.TB, s *executortest.Schema, cfg executor.Config) *executor.Executor {
	tb.Helper()
	x, err := executor.New(s, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return x
}
