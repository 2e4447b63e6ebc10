package eventlog_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// person is a caller whose roles may change while it listens.
type person struct {
	now atomic.Pointer[auth.Principal]
}

func (p *person) is(id uid.User, roles ...auth.Role) {
	p.now.Store(&auth.Principal{UserID: id, Roles: roles, Credential: auth.SessionCredential("ses_1")})
}

func (p *person) follow(ctx context.Context, t *testing.T, h *eventlog.Hub) *eventlog.Follower {
	t.Helper()
	f, err := h.Follow(auth.WithCurrent(ctx, p.now.Load), event.Filter{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// followed reads n events.
func followed(ctx context.Context, t *testing.T, f *eventlog.Follower, n int) (got []event.Position) {
	t.Helper()
	for len(got) < n {
		e, at, err := f.Next(ctx, func() {})
		if err != nil || e == nil || e.Cursor != at {
			t.Fatalf("Next after %v = %v, %v, %v, want an event and its cursor", got, e, at, err)
		}
		got = append(got, at.Position)
	}
	return got
}

func TestFollower_goes_by_the_rights_of_the_moment(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{Ring: 8}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		var p person
		p.is("a", auth.Customer)
		f := p.follow(ctx, t, h)
		m.Append(20) // the odd ones concern a; the first ones are read from the log
		h.Wake()
		synctest.Wait()
		if got := followed(ctx, t, f, 3); !slices.Equal(got, eventlogtest.Positions(11, 15, 2)) {
			t.Errorf("a customer got %v, want its own", got)
		}
		p.is("a") // a user without a role still sees its own events
		if got := followed(ctx, t, f, 7); !slices.Equal(got, eventlogtest.Positions(17, 29, 2)) {
			t.Errorf("the customer then got %v, want the rest of its own", got)
		}
		p.is("a", auth.Staff)
		m.Append(4)
		h.Wake()
		synctest.Wait()
		if got := followed(ctx, t, f, 2); !slices.Equal(got, eventlogtest.Positions(31, 32, 1)) {
			t.Errorf("staff got %v, want all", got)
		}
		p.is("a", auth.Customer) // the other two were taken already
		m.Append(1)
		h.Wake()
		if got := followed(ctx, t, f, 2); !slices.Equal(got, eventlogtest.Positions(33, 35, 2)) {
			t.Errorf("a customer again got %v, want its own", got)
		}
	})
}

func TestFollower_wakes_for_rights_that_it_got_while_it_waited(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		var p person
		p.is("intruder", auth.Customer)
		f := p.follow(ctx, t, h)
		first := make(chan *event.Event)
		go func() {
			e, _, _ := f.Next(ctx, func() {})
			first <- e
		}()
		synctest.Wait()
		p.is("intruder", auth.Admin)
		m.Append(1)
		h.Wake()
		if e := <-first; e == nil || e.Cursor.Position != 11 {
			t.Errorf("the first event is %v, want the one after the promotion", e)
		}
	})
}

func TestFollower_tells_how_far_it_has_come(t *testing.T) {
	t.Parallel()
	bubble(t, eventlog.HubConfig{}, func(ctx context.Context, t *testing.T, m *eventlogtest.Memory, h *eventlog.Hub) {
		var p person
		p.is("intruder", auth.Customer)
		f := p.follow(ctx, t, h)
		time.Sleep(time.Minute)
		m.Append(5)
		start := time.Now()
		e, at, err := f.Next(ctx, func() {})
		if e != nil || at.Position != 15 || err != nil || time.Since(start) > time.Minute {
			t.Errorf("Next = %v, %v, %v after %v, want the cursor 15 alone", e, at, err, time.Since(start))
		}
		soon, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		if e, at, err := f.Next(soon, func() {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next on a log that stands still = %v, %v, %v, want nothing for an hour", e, at, err)
		}
	})
}

func TestHub_Follow_refuses_anonymous_callers_and_names_the_cursor(t *testing.T) {
	t.Parallel()
	h := eventlogtest.NewHub(t, eventlogtest.NewMemory(), eventlog.HubConfig{})
	if _, err := h.Follow(t.Context(), event.Filter{}, nil); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an anonymous caller's Follow = %v, want UNAUTHENTICATED", err)
	}
	ctx := auth.With(t.Context(), &auth.Principal{UserID: "a", Credential: auth.SessionCredential("ses_1")})
	_, err := h.Follow(ctx, event.Filter{}, &event.Cursor{Timeline: "b", Position: 1})
	if f := fault.From(err); f.Code != fault.CursorUnknown || !slices.Equal(f.Path, []string{"after"}) {
		t.Errorf("Follow after a foreign cursor = %v at %v, want CURSOR_UNKNOWN at after", err, f.Path)
	}
}
