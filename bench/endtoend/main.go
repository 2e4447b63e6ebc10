// Command endtoend measures the server as users run it: the binary as a process, PostgreSQL with
// fsync on, requests over HTTP.
//
//	go run ./bench/endtoend [flags]
//
// It fills databases by `backplane seed`, which stores rows and events as the product's own writes
// do, in large transactions. Each target has a database of its own, a copy of the same rows. Then it
// drives each target with each workload, over connections that each have one request in flight,
// in interleaved rounds, and prints medians of the rounds and the ratio of processor time
// to the hand-written handler's.
//
// The targets are named for what answers:
//
//	static       a handler of net/http that writes the bytes of a response of the product
//	handwritten  handlers over pgx: prepared statements, encoding/json, one pipelined transaction for
//	             an order, on the product's tables and indexes, with one row of an outbox in place of
//	             the event log. They check no credentials, keep no limits and write no access log.
//	planned      the product with its default settings, on PostgreSQL
//	cold         the same with BACKPLANE_CACHE_BYTES=0, so that every read reaches the database
//	gqlgen       the same with BACKPLANE_EXECUTOR=gqlgen
//	redis        the same with Redis
//	sqlite       the product on SQLite
//	baseline     the product of another build, see -baseline
//
// A measurement follows a pass over all requests that the workload repeats, so every target but cold
// answers from its caches as far as it has any. The generator shares the machine with all
// of them: compare figures of one run, and best the processor time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if os.Getenv(peerEnv) != "" {
		exit(servePeer())
	}
	o := defaults()
	o.bind(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "endtoend:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are what the flags say.
type options struct {
	users, orders int
	rounds        int
	time          time.Duration // of a measurement
	connections   int
	limit         time.Duration // of the whole run
	targets       string
	workloads     string
	binary        string
	baseline      string
	json, compare string
	baselineEnv   string
}

func defaults() options {
	return options{
		users: 10_000, orders: 50_000, rounds: 5, time: 2 * time.Second, connections: 32, limit: 30 * time.Minute,
		targets: "static,handwritten,planned,cold,gqlgen,redis,sqlite", workloads: strings.Join(workloadNames(), ","),
	}
}

func (o *options) bind(fs *flag.FlagSet) {
	fs.IntVar(&o.users, "users", o.users, "`number` of users")
	fs.IntVar(&o.orders, "orders", o.orders, "`number` of orders, of three lines each")
	fs.IntVar(&o.rounds, "rounds", o.rounds, "`number` of rounds, whose medians are printed")
	fs.DurationVar(&o.time, "time", o.time, "`duration` of each measurement")
	fs.IntVar(&o.connections, "connections", o.connections, "`number` of connections")
	fs.DurationVar(&o.limit, "limit", o.limit, "`duration` after which the run is given up")
	fs.StringVar(&o.targets, "targets", o.targets, "comma-separated `names` of targets")
	fs.StringVar(&o.workloads, "workloads", o.workloads, "comma-separated `names` of workloads")
	fs.StringVar(&o.binary, "binary", "", "`file` of the server; built if not given")
	fs.StringVar(&o.baseline, "baseline", "", "`file` of another build of the server, driven as the target baseline")
	fs.StringVar(&o.baselineEnv, "baseline-env", "", "comma-separated `settings` of the baseline, as NAME=value")
	fs.StringVar(&o.json, "json", "", "`file` to write the results to")
	fs.StringVar(&o.compare, "compare", "", "`file` of earlier results to compare with")
}

func (o *options) validate() error {
	if o.users < 10 || o.orders < 10 || o.rounds < 1 || o.connections < 1 || o.time <= 0 {
		return errors.New("needs at least 10 users and orders, and one round and connection")
	}
	return nil
}

// run measures and prints.
func run(ctx context.Context, o options, out io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	before, err := readResults(o.compare)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	s, err := openSetup(ctx, o, out)
	if err != nil {
		return err
	}
	defer s.close()
	works, err := s.newWorkloads(o.workloads)
	if err != nil {
		return err
	}
	results, err := s.measure(ctx, works, out)
	if err != nil {
		return err
	}
	results.print(out)
	results.printComparison(out, before)
	return results.write(o.json)
}

// measure runs all rounds.
func (s *setup) measure(ctx context.Context, works []*workload, out io.Writer) (*results, error) {
	r := newResults(s.options)
	for round := range s.options.rounds {
		for _, w := range works {
			for _, t := range s.targets {
				m, ok, err := s.measureOnce(ctx, t, w)
				if err != nil {
					return nil, fmt.Errorf("%s of %s: %w", w.name, t.name, err)
				}
				if ok {
					r.add(w.name, t.name, m)
				}
			}
		}
		fmt.Fprintf(out, "round %d of %d\n", round+1, s.options.rounds)
	}
	return r, nil
}
