package eventlog_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// runNode runs a node on the database until it has read to the position, and then fn.
func runNode(t *testing.T, name, database string, fn func(*testing.T, *eventlog.Hub)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		n := eventlogtest.StartNode(t, database, (&notify.Memory{}).Join(), eventlog.PipelineConfig{})
		testenv.Eventually(t, "the node has read the log", func() bool { return n.Pipeline.Hub.Head().Position == 3 })
		fn(t, n.Pipeline.Hub)
	})
}

// fillLog runs a node that stores three events, and returns the cursor of the last one.
func fillLog(t *testing.T, database string) (last event.Cursor) {
	t.Helper()
	t.Run("a node stores events", func(t *testing.T) {
		w := eventlogtest.OpenShop(t, database, 3)
		testenv.Eventually(t, "the hub has read all", func() bool { return w.Pipeline.Hub.Head().Position == 3 })
		last = w.Pipeline.Hub.Head()
	})
	return last
}

func expectTimeline(want event.Cursor) func(*testing.T, *eventlog.Hub) {
	return func(t *testing.T, h *eventlog.Hub) {
		t.Helper()
		if got := h.Head(); got != want {
			t.Errorf("the node is at %v, want %v: nothing happened to the database", got, want)
		}
	}
}

func TestTimeline_is_renewed_in_a_database_that_was_restored(t *testing.T) { //nolint:tparallel // its nodes run one after the other
	t.Parallel()
	database := testenv.Postgres(t)
	before := fillLog(t, database)
	runNode(t, "a node starts on the same database", database, expectTimeline(before))
	copied := copyDatabase(t, database)
	runNode(t, "a node starts on a copy", copied, func(t *testing.T, h *eventlog.Hub) { t.Helper(); expectNewTimeline(t, h, before) })
	runNode(t, "a node starts on the former database", database, expectTimeline(before))
}

// copyDatabase makes a database with the rows of the given one, which is not in use, as a restored dump has them.
func copyDatabase(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	u.Path = "/postgres"
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	target := name + "_copy"
	if _, err := conn.Exec(t.Context(), `CREATE DATABASE `+pgx.Identifier{target}.Sanitize()+` TEMPLATE `+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	admin := u.String()
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), admin)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), `DROP DATABASE `+pgx.Identifier{target}.Sanitize()+` WITH (FORCE)`); err != nil {
			t.Error(err)
		}
	})
	u.Path = "/" + target
	return u.String()
}

// A standby that is promoted while no node runs may lack events that a client has seen.
func TestTimeline_is_renewed_on_a_server_that_was_promoted_while_no_node_ran(t *testing.T) { //nolint:tparallel // its nodes run one after the other
	t.Parallel()
	primary := testenv.PostgresPrimary(t)
	before := fillLog(t, primary.URL)
	standby := primary.Standby()
	primary.Must(primary.SetReadOnly())
	primary.Must(standby.Promote())
	runNode(t, "a node starts on the former standby", standby.URL, func(t *testing.T, h *eventlog.Hub) { t.Helper(); expectNewTimeline(t, h, before) })
}

func TestTimeline_goes_on_over_a_promotion_that_a_node_has_seen(t *testing.T) { //nolint:tparallel // its nodes run one after the other
	t.Parallel()
	primary := testenv.PostgresPrimary(t)
	u, err := url.Parse(primary.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testenv.NewProxy(t, u.Host)
	u.Host = proxy.Addr
	var before event.Cursor
	standbyURL := ""
	t.Run("a node runs over the promotion", func(t *testing.T) {
		w := eventlogtest.OpenShop(t, u.String(), 2)
		hub := w.Pipeline.Hub
		testenv.Eventually(t, "the hub has read all", func() bool { return hub.Head().Position == 2 })
		standby := primary.Standby()
		primary.Must(primary.Synchronize())
		primary.Must(primary.SetReadOnly())
		primary.Must(standby.Promote())
		proxy.Redirect(standby.Address())
		testenv.Eventually(t, "the node can write again", func() bool { return w.DB.Ping(t.Context()) == nil && w.DB.CheckWritable(t.Context()) == nil })
		w.Update(t, w.Products[0], 1)
		testenv.Eventually(t, "the hub has read the new event", func() bool { return hub.Head().Position == 3 })
		before, standbyURL = hub.Head(), standby.URL
		testenv.Eventually(t, "the node has stored where the log is", func() bool {
			return standby.Exec(`DO $$ BEGIN ASSERT (SELECT server_timeline FROM timelines) = 2; END $$`) == nil
		})
	})
	runNode(t, "a node starts afterwards", standbyURL, expectTimeline(before))
}
