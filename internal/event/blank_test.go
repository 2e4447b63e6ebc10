package event_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
)

func TestHub_shows_nothing_of_a_user_who_is_deleted_meanwhile(t *testing.T) {
	t.Parallel()
	bubble(t, event.HubConfig{}, func(ctx context.Context, t *testing.T, m *memory, h *event.Hub) {
		var p person
		p.is("staff", auth.Staff)
		slow, late := p.follow(ctx, t, h), &event.Cursor{Timeline: "a", Position: 10}
		m.add(6) // the odd ones are of a
		h.Wake()
		synctest.Wait()
		followed(ctx, t, slow, 1) // has taken the others too, and not shown them
		blanked := slow.Blanked()
		m.change(func() {
			for i, e := range m.events {
				if e.SubjectID == "a" {
					blank := *e
					blank.Data = []byte(`{"redacted":true}`)
					m.events[i] = &blank
				}
			}
			m.events = append(m.events, &event.Event{Type: event.UserDeleted, SubjectID: "a", Cursor: event.Cursor{Timeline: "a", Position: 17}})
		})
		h.Wake()
		synctest.Wait()
		reads := m.readCount()
		for _, f := range []*event.Follower{slow, follower(ctx, t, h, &p, late)} {
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
		if n := m.readCount() - reads; n > 1 { // the state, for the one who came late
			t.Errorf("%d reads, want all from the ring", n)
		}
		if slow.Blanked() == blanked {
			t.Error("who shares what was made before is not told that it may not be shown again")
		}
	})
}

func follower(ctx context.Context, t *testing.T, h *event.Hub, p *person, after *event.Cursor) *event.Follower {
	t.Helper()
	f, err := h.Follow(auth.WithCurrent(ctx, p.now.Load), event.Filter{}, after)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
