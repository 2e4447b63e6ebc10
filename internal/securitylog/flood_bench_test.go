package securitylog_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/executor/executortest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// BenchmarkRecorder_flood is the cost of refused requests with and without the security log: rounds of 10,000 of each, in turns, so
// that both have the same load. A request is an operation that is prepared, executed and refused, without a transport, an
// authentication or a password, beside which the log would not show. Most are equal to others of their minute; of those of 1,000
// addresses each second one is not.
func BenchmarkRecorder_flood(b *testing.B) {
	const round = 10_000
	for name, refusal := range map[string]error{
		"permission denied": fault.New(fault.Forbidden, "This needs the role ADMIN."),
		"failed sign-in":    security.Refuse(security.SignInFailed, "WRONG_PASSWORD", fault.New(fault.CredentialsWrong, "The login or the password is wrong.")),
	} {
		for _, addresses := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s, %d addresses", name, addresses), func(b *testing.B) {
				schema := executortest.New(executortest.Object{"hello": executortest.Resolver(func(context.Context, map[string]any) (any, error) { return nil, refusal })}, nil, nil)
				origins := make([]string, addresses)
				for i := range origins {
					origins[i] = fmt.Sprintf("10.%d.%d.1", i/250, i%250)
				}
				refuse := func(x *executor.Executor) time.Duration {
					begun := time.Now()
					for i := range round {
						ctx := from(origins[i%addresses])
						op, problem := x.Prepare(ctx, executor.Request{Query: "{ hello }"})
						if problem != nil {
							b.Fatal(problem.Errors)
						}
						if resp, err := x.Run(ctx, op); err != nil || len(resp.Errors) != 1 {
							b.Fatal(resp, err)
						}
					}
					return time.Since(begun)
				}
				recorder := runRecorder(b)
				silent, recording := newExecutor(b, schema, nil), newExecutor(b, schema, recorder.RecordError)
				refuse(silent)
				refuse(recording)
				var without, with time.Duration
				for b.Loop() {
					without += refuse(silent)
					with += refuse(recording)
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(without.Nanoseconds())/float64(round*b.N), "ns/request")
				b.ReportMetric(float64(with.Nanoseconds())/float64(round*b.N), "ns/recorded")
				b.ReportMetric(float64(with)/float64(without), "ratio")
			})
		}
	}
}

func newExecutor(b *testing.B, schema *executortest.Schema, onError func(context.Context, error)) *executor.Executor {
	b.Helper()
	x, err := executor.New(schema, executor.Config{OnError: onError}, discard())
	if err != nil {
		b.Fatal(err)
	}
	return x
}

// runRecorder runs a recorder that stores in SQLite and logs as a server does.
func runRecorder(b *testing.B) *securitylog.Recorder {
	b.Helper()
	db := testenv.Open(b, store.Config{URL: testenv.SQLite(b)})
	r, err := securitylog.NewRecorder(db.SecurityEvents(), time.Now, slog.New(slog.NewTextHandler(io.Discard, nil)), securitylog.Config{}) //nolint:sloglint // records are formatted, which is a part of the cost
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	return r
}
