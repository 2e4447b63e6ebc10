package eventlog_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
)

func TestHub_shows_nothing_of_a_user_who_is_deleted_meanwhile(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		var p person
		p.is("staff", auth.Staff)
		slow, late := p.follow(ctx, t, h), &event.Cursor{Timeline: "a", Position: 10}
		m.Append(6) // the odd ones are of a
		h.Wake()
		synctest.Wait()
		followed(ctx, t, slow, 1) // has taken the others too, and not shown them
		blanked := slow.RedactionCount()
		m.Change(func() {
			for i, e := range m.Events {
				if e.SubjectID == "a" {
					blank := *e
					blank.Data = []byte(`{"redacted":true}`)
					m.Events[i] = &blank
				}
			}
			m.Events = append(m.Events, &event.Event{Type: event.UserDeleted, SubjectID: "a", Cursor: event.Cursor{Timeline: "a", Position: 17}})
		})
		h.Wake()
		synctest.Wait()
		reads := m.ReadCount()
		for _, f := range []*eventlog.Follower{slow, follower(ctx, t, h, &p, late)} {
			for at := event.Position(0); at < 16; {
				e, c, err := f.Next(ctx, func() {})
				if err != nil {
					t.Fatal(err)
				}
				at = c.Position
				if e.SubjectID == "a" && string(e.Data) != `{"redacted":true}` {
					t.Errorf("event %d still shows %s of the user", at, e.Data)
				}
			}
		}
		if n := m.ReadCount() - reads; n > 1 { // the state, for the one who came late
			t.Errorf("%d reads, want all from the ring", n)
		}
		if slow.RedactionCount() == blanked {
			t.Error("who shares what was made before is not told that it may not be shown again")
		}
	})
}

func follower(ctx context.Context, t *testing.T, h *eventlog.Hub, p *person, after *event.Cursor) *eventlog.Follower {
	t.Helper()
	f, err := h.Follow(auth.WithCurrent(ctx, p.now.Load), event.Filter{}, after)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
