package operation_test

import (
	"log/slog"
	"testing"

	"github.com/backplane-dev/backplane/internal/operation"
	"github.com/backplane-dev/backplane/internal/operation/operationtest"
)

// newExecutor returns an executor over the test schema without resolvers.
func newExecutor(tb testing.TB, cfg operation.Config) *operation.Executor {
	tb.Helper()
	return executorOver(tb, operationtest.New(nil, nil, nil), cfg)
}

func executorOver(tb testing.TB, s *operationtest.Schema, cfg operation.Config) *operation.Executor {
	tb.Helper()
	x, err := operation.New(s, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	return x
}
