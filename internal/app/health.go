package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backplane-dev/backplane/internal/admin"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/store"
)

// maxEventLag is how far the reader of the event log may be behind on a node that is ready: far more
// than a takeover of the sequencer needs.
const maxEventLag = 10 * time.Second

// Health says whether this node is able: whether changes can be stored, and whether their events get
// positions and are read.
type Health struct {
	db      *store.DB
	monitor *store.Monitor
	hub     *eventlog.Hub
}

// NewHealth builds the health of the node. It knows nothing before it and the feed run.
func NewHealth(db *store.DB, feed *eventlog.Pipeline) *Health {
	return &Health{db: db, monitor: db.NewMonitor(), hub: feed.Hub}
}

// Run implements Runner.
func (h *Health) Run(ctx context.Context) error { return h.monitor.Run(ctx) }

// Ready returns nil if a load balancer should send requests here, else an Unavailable error whose cause says
// what to do. It asks the database for its migrations alone; the rest is known.
func (h *Health) Ready(ctx context.Context) error {
	if err := h.monitor.Ready(ctx); err != nil {
		return err
	}
	return h.eventsFlow()
}

// eventsFlow reports whether the events of changes get positions, and this node reads them.
func (h *Health) eventsFlow() error {
	if !h.hub.Complete() {
		return fault.New(fault.Unavailable, "The server has just started.").Because(
			errors.New("the event log has not been read to its end yet: if this lasts, no sequencer assigns positions, or the database cannot be read"))
	}
	if h.hub.Lag() > maxEventLag {
		return fault.New(fault.Unavailable, "Changes are stored, but their events do not arrive at the moment.").Because(
			fmt.Errorf("the event log has not been read to its end for %v: no sequencer assigns positions, or this node cannot keep up", maxEventLag))
	}
	return nil
}

// register registers the metrics of the node's health, of its connections to the database and of the
// database's time.
func (h *Health) register(s *admin.Server) {
	s.Register("backplane_clock_skew_seconds", func() float64 { return h.db.Clock().Skew().Seconds() })
	s.Register("backplane_clock_reliable", func() float64 { return boolGauge(h.db.Clock().CheckAge() == nil) })
	s.Register("backplane_database_writable", func() float64 { return boolGauge(h.monitor.Writable() == nil) })
	s.Register("backplane_event_log_lag_seconds", func() float64 { return h.hub.Lag().Seconds() })
	s.Register("backplane_event_log_unknown_events_total", func() float64 { return float64(h.hub.UnknownEvents()) })
	s.Register("backplane_event_log_cursors_beyond_head_total", func() float64 { return float64(h.hub.CursorsBeyondHead()) })
	s.Register("backplane_database_server_epoch", func() float64 { return float64(h.db.ServerEpoch()) })
	for pool := range h.db.Connections() {
		for state, value := range map[string]func(store.Connections) int{
			"used": func(c store.Connections) int { return c.Used },
			"idle": func(c store.Connections) int { return c.Open - c.Used },
		} {
			s.Register(fmt.Sprintf("backplane_database_connections{pool=%q,state=%q}", pool, state), func() float64 { return float64(value(h.db.Connections()[pool])) })
		}
		s.Register(fmt.Sprintf("backplane_database_connections_max{pool=%q}", pool), func() float64 { return float64(h.db.Connections()[pool].Max) })
		s.Register(fmt.Sprintf("backplane_database_busy_refusals_total{pool=%q}", pool), func() float64 { return float64(h.db.Connections()[pool].Refusals) })
		s.Register(fmt.Sprintf("backplane_database_connection_waits_total{pool=%q}", pool), func() float64 { return float64(h.db.Connections()[pool].Waits) })
	}
}
