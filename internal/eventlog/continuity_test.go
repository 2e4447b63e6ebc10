package eventlog_test

import (
	"context"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// awaitEnd reads a subscription until it ends, which must be for a cursor that the log does not know.
func awaitEnd(t *testing.T, s *eventlog.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, err := range eventsOf(ctx, s) {
		if err != nil && !fault.Is(err, fault.CursorUnknown) {
			t.Errorf("the subscription ended with %v, want CURSOR_UNKNOWN", err)
		}
	}
}

// expectNewTimeline waits until the hub is on another timeline than the cursor, which must be refused.
func expectNewTimeline(t *testing.T, h *eventlog.Hub, before event.Cursor) {
	t.Helper()
	testenv.Eventually(t, "another timeline has begun", func() bool { return h.Head().Timeline != before.Timeline })
	if _, err := h.Subscribe(t.Context(), &before, event.Filter{}); !fault.Is(err, fault.CursorUnknown) {
		t.Errorf("Subscribe after a cursor of before = %v, want CURSOR_UNKNOWN", err)
	}
}

func TestTimeline_is_renewed_when_a_fail_over_loses_events(t *testing.T) {
	t.Parallel()
	primary := testenv.PostgresPrimary(t)
	u, err := url.Parse(primary.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testenv.NewProxy(t, u.Host)
	u.Host = proxy.Addr
	w := eventlogtest.OpenShop(t, u.String(), 1)
	hub := w.Pipeline.Hub
	testenv.Eventually(t, "the product has an event", func() bool { return hub.Head().Position == 1 })
	standby := primary.Standby()
	standby.Must(standby.Exec(`ALTER SYSTEM SET primary_conninfo = ''`, `SELECT pg_reload_conf()`)) // it gets no further changes
	testenv.Eventually(t, "the standby is cut off", func() bool {
		return primary.Exec(`DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM pg_stat_replication); END $$`) == nil
	})
	s := subscribe(t.Context(), t, hub, nil, event.Filter{})
	w.Update(t, w.Products[0], 5)
	positions(t.Context(), t, s, 5)
	before := hub.Head()
	primary.Must(primary.SetReadOnly())
	primary.Must(standby.Promote())
	proxy.Redirect(standby.Address())
	testenv.Eventually(t, "the node can write again", func() bool { return w.DB.Ping(t.Context()) == nil && w.DB.CheckWritable(t.Context()) == nil })
	w.Update(t, w.Products[0], 12) // more than were lost
	awaitEnd(t, s)
	expectNewTimeline(t, hub, before)
	testenv.Eventually(t, "the events after the fail-over are read", func() bool { return hub.Head().Position >= 13 })
}

// changingHead is positions where the event at the head can become another one.
type changingHead struct {
	*fakePositions

	id        atomic.Pointer[uid.Event]
	abandoned chan string
}

func (s *changingHead) EventAt(context.Context, event.Position) (uid.Event, error) {
	return *s.id.Load(), nil
}

func (s *changingHead) AbandonTimeline(_ context.Context, timeline string) error {
	s.abandoned <- timeline
	return nil
}

// The events were in the log before the node began: it has not read the newest of them, and must know it all the same.
func TestTimeline_is_renewed_when_the_event_at_the_start_becomes_another(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, store := eventlogtest.NewMemory(), &changingHead{fakePositions: &fakePositions{}, abandoned: make(chan string, 1)}
		first, second := uid.Event("evt_first"), uid.Event("evt_second")
		store.id.Store(&first)
		log.Append(3)
		f, err := eventlog.NewPipeline(eventlog.NewLog(log), store, (&notify.Memory{}).Join(), eventlogtest.DiscardLogger(), eventlog.PipelineConfig{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		testenv.Eventually(t, "the hub begins at the head", func() bool { return f.Hub.Head().Position == 3 })
		store.id.Store(&second)
		select {
		case <-store.abandoned:
		case <-time.After(time.Minute):
			t.Error("another event at the head of the log was not noticed")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// staleHead is positions whose head is behind what the hub has read.
type staleHead struct {
	*fakePositions

	abandoned chan string
}

func (s staleHead) AbandonTimeline(_ context.Context, timeline string) error {
	s.abandoned <- timeline
	return nil
}

func TestTimeline_is_renewed_before_positions_are_assigned_again(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, store := eventlogtest.NewMemory(), staleHead{&fakePositions{}, make(chan string, 1)}
		store.lease.Owner, store.expires = "another node", time.Now().Add(time.Minute)
		log.Append(3)
		f, err := eventlog.NewPipeline(eventlog.NewLog(log), store, (&notify.Memory{}).Join(), eventlogtest.DiscardLogger(), eventlog.PipelineConfig{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		if got := <-store.abandoned; got != log.Timeline { // once the lease of the other node has expired
			t.Errorf("the timeline %q was abandoned, want %q", got, log.Timeline)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestTimeline_is_renewed_when_a_position_stands_for_another_event(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	w := eventlogtest.OpenShop(t, database, 3)
	hub := w.Pipeline.Hub
	testenv.Eventually(t, "the hub has read all", func() bool { return hub.Head().Position == 3 })
	s := subscribe(t.Context(), t, hub, nil, event.Filter{})
	before := hub.Head()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `UPDATE events SET id = 'evt_other' WHERE position = 3`); err != nil {
		t.Fatal(err)
	}
	awaitEnd(t, s)
	expectNewTimeline(t, hub, before)
}
