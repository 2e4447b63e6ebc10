package executor

import (
	"log/slog"
	"testing"

	"github.com/backplane-dev/backplane/internal/executor/executortest"
)

// BenchmarkRun_of_100_lines compares a mutation with an input of 100 lines with the
// digest of its variables, which only subscriptions need.
func BenchmarkRun_of_100_lines(b *testing.B) {
	schema := executortest.New(nil, executortest.Object{"touch": "touched"}, nil)
	x, err := New(schema, Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	op, refusal := x.Prepare(b.Context(), Request{Query: "mutation{touch}"})
	if refusal != nil {
		b.Fatal(refusal.Errors)
	}
	op.variables = map[string]any{"input": map[string]any{"items": lines(100)}}
	b.Run("run", func(b *testing.B) {
		for b.Loop() {
			_, _ = x.Run(b.Context(), op)
		}
	})
	op.document.tokens = &documentTokens{}
	b.Run("digest", func(b *testing.B) {
		for b.Loop() {
			op.shareDigest()
		}
	})
}

func lines(n int) []any {
	all := make([]any, n)
	for i := range all {
		all[i] = map[string]any{"sku": "TEA-GREEN", "quantity": int64(i + 1)}
	}
	return all
}
