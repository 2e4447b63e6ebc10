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

// notified lets a fleet's own transactions wake the nodes as a node would that
// hears of others through PostgreSQL. An empty word makes each look for itself.
func (f *fleet) notified() *fleet {
	f.wake = func(ctx context.Context) error {
		_, err := f.db.ExecContext(ctx, `SELECT pg_notify('backplane_events', '')`)
		return err
	}
	return f
}

// killOne kills any node, and starts it again.
func (f *fleet) killOne() {
	n := rand.IntN(len(f.nodes))
	f.falls(n)
	f.nodes[n].Kill()
	harness.Pause(f.t.Context(), rand.N(killPause/4))
	f.nodes[n].Start()
}

func TestServer_sends_every_reader_exactly_the_log_while_nodes_are_killed(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, testenv.Postgres(t)).notified()
	f.endure(weather{storm: stormTime(20 * time.Second), pause: killPause, trouble: f.killOne})
	for _, d := range f.successions() {
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
	f.endure(weather{storm: stormTime(10 * time.Second), pause: killPause / 3, trouble: inTurn(
		wire.Cut, wire.Heal, wire.Stall, wire.Heal, wire.Lose, f.killOne, broker.Halt, broker.Start)})
}

// inTurn does one thing after the other, and begins again.
func inTurn(things ...func()) func() {
	turn := 0
	return func() {
		things[turn%len(things)]()
		turn++
	}
}

func TestServer_sends_every_reader_exactly_the_log_while_nodes_lose_their_connections(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, testenv.Postgres(t)).notified()
	deaf, alone := func() { f.hangUp("backplane bus") }, func() { f.hangUp("backplane%") }
	f.endure(weather{storm: stormTime(8 * time.Second), pause: killPause / 4, trouble: inTurn(deaf, deaf, deaf, alone, deaf, deaf, f.killOne)})
}

// hangUp ends the sessions of the nodes with PostgreSQL whose applications are
// like the name.
func (f *fleet) hangUp(application string) {
	f.count(`SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE '` + application + `'`)
}

func TestServer_sends_every_reader_exactly_the_log_when_the_sequencer_freezes(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, testenv.Postgres(t)).notified()
	f.endure(weather{storm: stormTime(9 * time.Second), pause: killPause / 2, trouble: f.freezeLeader})
	if len(f.successions()) == 0 {
		t.Error("no node was frozen")
	}
}

// freezeLeader stops the node that numbers events until another one has begun to,
// and a little longer, and then lets it go on.
func (f *fleet) freezeLeader() {
	f.t.Helper()
	l := f.leader()
	f.falls(l.node)
	frozen := f.nodes[l.node]
	frozen.Freeze()
	harness.Eventually(f.t, "another node owns the sequencer lease", func() bool { return f.leader().epoch > l.epoch })
	harness.Pause(f.t.Context(), rand.N(time.Second))
	stopped := func() int {
		logs := frozen.Logs() // whose statement was under way knows only that its time is over
		return strings.Count(logs, "sequencer stopped: another node owns its lease") + strings.Count(logs, "sequencer cannot assign positions")
	}
	before := stopped()
	frozen.Thaw()
	harness.Eventually(f.t, "the frozen node knows that it is late", func() bool { return stopped() > before })
}

func TestServer_sends_every_reader_exactly_the_log_of_a_file_whose_server_is_killed(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, testenv.SQLite(t))
	f.endure(weather{storm: stormTime(8 * time.Second), pause: killPause / 2, trouble: f.killOne})
}
