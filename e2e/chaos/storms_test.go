package chaos

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// withNotifier lets the fleet's own transactions notify the nodes over PostgreSQL, as a node
// does. An empty payload makes each node read the log.
func (f *fleet) withNotifier() *fleet {
	f.wake = func(ctx context.Context) error {
		_, err := f.db.ExecContext(ctx, `SELECT pg_notify('backplane_events', '')`)
		return err
	}
	return f
}

// killOne kills any node, and starts it again.
func (f *fleet) killOne() {
	n := rand.IntN(len(f.nodes))
	f.recordKill(n)
	f.nodes[n].Kill()
	harness.Pause(f.t.Context(), rand.N(killPause/4))
	f.nodes[n].Start()
}

func TestServer_sends_every_reader_exactly_the_log_while_nodes_are_killed(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, testenv.Postgres(t)).withNotifier()
	f.runUnderFaults(faultPlan{storm: faultDuration(20 * time.Second), pause: killPause, trouble: f.killOne})
	for _, d := range f.takeoverTimes() {
		if d > 10*time.Second {
			t.Errorf("it took %v until another node numbered events, want some seconds", d)
		}
	}
}

func TestServer_sends_every_reader_exactly_the_log_while_Redis_comes_and_goes(t *testing.T) {
	t.Parallel()
	broker := testenv.RedisBroker(t)
	opts, err := redis.ParseURL(broker.URL)
	if err != nil {
		t.Fatal(err)
	}
	wire := testenv.NewProxy(t, opts.Addr)
	f := newFleet(t, 3, testenv.Postgres(t), "BACKPLANE_REDIS_URL="+strings.Replace(broker.URL, opts.Addr, wire.Addr, 1))
	f.runUnderFaults(faultPlan{storm: faultDuration(10 * time.Second), pause: killPause / 3, trouble: alternate(
		wire.Cut, wire.Heal, wire.Stall, wire.Heal, wire.Lose, f.killOne, broker.Halt, broker.Start)})
}

// alternate returns a function that calls the next of the functions, round-robin.
func alternate(things ...func()) func() {
	turn := 0
	return func() {
		things[turn%len(things)]()
		turn++
	}
}

func TestServer_sends_every_reader_exactly_the_log_while_nodes_lose_their_connections(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, testenv.Postgres(t)).withNotifier()
	deaf, alone := func() { f.closeConnections("backplane bus") }, func() { f.closeConnections("backplane%") }
	f.runUnderFaults(faultPlan{storm: faultDuration(8 * time.Second), pause: killPause / 4, trouble: alternate(deaf, deaf, deaf, alone, deaf, deaf, f.killOne)})
}

// closeConnections ends the PostgreSQL sessions of the nodes whose application name matches.
func (f *fleet) closeConnections(application string) {
	f.countRows(`SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE '` + application + `'`)
}

func TestServer_sends_every_reader_exactly_the_log_when_the_sequencer_freezes(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, testenv.Postgres(t)).withNotifier()
	f.runUnderFaults(faultPlan{storm: faultDuration(9 * time.Second), pause: killPause / 2, trouble: f.freezeLeader})
	if len(f.takeoverTimes()) == 0 {
		t.Error("no node was frozen")
	}
}

// freezeLeader freezes the node of the sequencer until another one has taken over, and a
// little longer, and thaws it.
func (f *fleet) freezeLeader() {
	f.t.Helper()
	l := f.lastTerm()
	f.recordKill(l.node)
	frozen := f.nodes[l.node]
	frozen.Freeze()
	harness.Eventually(f.t, "another node owns the sequencer lease", func() bool { return f.lastTerm().epoch > l.epoch })
	harness.Pause(f.t.Context(), rand.N(time.Second))
	stopped := func() int {
		logs := frozen.Logs() // a node with a statement under way logs a timeout only
		return strings.Count(logs, "sequencer stopped: another node owns its lease") + strings.Count(logs, "sequencer cannot assign positions")
	}
	before := stopped()
	frozen.Thaw()
	harness.Eventually(f.t, "the frozen node knows that it is late", func() bool { return stopped() > before })
}

func TestServer_sends_every_reader_exactly_the_log_of_a_file_whose_server_is_killed(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, testenv.SQLite(t))
	f.runUnderFaults(faultPlan{storm: faultDuration(8 * time.Second), pause: killPause / 2, trouble: f.killOne})
}
