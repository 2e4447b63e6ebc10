package eventlog_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
)

func TestHub_reports_types_that_this_release_does_not_know(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := eventlogtest.NewMemory()
		m.Append(4)
		m.Change(func() { m.Events[1].Type, m.Events[2].Type = "parcel.sent", "parcel.sent" })
		var logged strings.Builder
		h, err := eventlog.NewHub(eventlog.NewLog(m), eventlogtest.NewTextLogger(&logged), eventlog.HubConfig{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		synctest.Wait()
		s := subscribe(ctx, t, h, &event.Cursor{Timeline: "a"}, event.Filter{})
		m.Append(2)
		m.Change(func() { m.Events[4].Type = "parcel.sent" })
		h.Wake()
		positions(ctx, t, s, 6)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		if n := h.UnknownEvents(); n != 1 {
			t.Errorf("%d events of unknown types were counted, want the one that was read since the start", n)
		}
		if got := logged.String(); strings.Count(got, "parcel.sent") != 1 || !strings.Contains(got, "position=5") {
			t.Errorf("logged %q, want the type once", got)
		}
	})
}
