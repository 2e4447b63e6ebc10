package eventlog_test

import (
	"context"
	"slices"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// history is a memory whose events are all of one order.
type history struct{ eventlog.Store }

func (h history) ReadOrders(ctx context.Context, orders []uid.Order, f event.Filter, s eventlog.Span) (map[uid.Order][]*event.Event, error) {
	all, err := h.Read(ctx, f, eventlog.Span{After: s.After, Before: s.Before, Limit: 1000})
	if s.Backward {
		slices.Reverse(all)
	}
	return map[uid.Order][]*event.Event{orders[0]: all[:min(len(all), s.Limit)]}, err
}

func asAdmin(t *testing.T) context.Context {
	t.Helper()
	return auth.With(t.Context(), &auth.Principal{UserID: "usr_1", Roles: []auth.Role{auth.Admin}, Credential: auth.SessionCredential("ses_1")})
}

func TestLog_ListByOrders(t *testing.T) {
	t.Parallel()
	n := func(n int) *int { return &n }
	at := func(c string) *string { return &c }
	tests := []struct {
		name       string
		args       page.Args
		want       []event.Position
		next, prev bool
		refusal    fault.Code
	}{
		{"gives the first ones", page.Args{First: n(3)}, eventlogtest.Positions(1, 3, 1), true, false, ""},
		{"gives all if they fit", page.Args{}, eventlogtest.Positions(1, 10, 1), false, false, ""},
		{"goes on behind a cursor", page.Args{First: n(3), After: at("a.3")}, eventlogtest.Positions(4, 6, 1), true, true, ""},
		{"ends", page.Args{First: n(3), After: at("a.8")}, eventlogtest.Positions(9, 10, 1), false, true, ""},
		{"gives the last ones in their order", page.Args{Last: n(3)}, eventlogtest.Positions(8, 10, 1), false, true, ""},
		{"goes back ahead of a cursor", page.Args{Last: n(3), Before: at("a.8")}, eventlogtest.Positions(5, 7, 1), true, true, ""},
		{"gives what lies between two", page.Args{After: at("a.3"), Before: at("a.6")}, eventlogtest.Positions(4, 5, 1), false, true, ""},
		{"has nothing ahead of the beginning", page.Args{Last: n(3), Before: at("a.0")}, nil, true, false, ""},
		{"can be empty", page.Args{First: n(0)}, nil, true, false, ""},
		{"refuses a page that is too large", page.Args{First: n(101)}, nil, false, false, fault.PageSizeInvalid},
		{"refuses a cursor of another list", page.Args{After: at("WyJhIl0")}, nil, false, false, fault.CursorInvalid},
		{"refuses a cursor of another timeline", page.Args{Before: at("b.1")}, nil, false, false, fault.CursorUnknown},
		{"refuses a cursor beyond the head", page.Args{After: at("a.11")}, nil, false, false, fault.CursorUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := eventlogtest.NewMemory()
			m.Append(10)
			pages, err := eventlog.NewLog(history{m}).ListByOrders(asAdmin(t), []uid.Order{"o"}, tt.args)
			if tt.refusal != "" {
				if !fault.Is(err, tt.refusal) {
					t.Errorf("ListByOrders = %v, want %s", err, tt.refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p := pages["o"]
			var got []event.Position
			for i, e := range p.Items {
				got = append(got, e.Cursor.Position)
				if p.Cursors[i] != e.Cursor.String() {
					t.Errorf("the cursor of item %d is %s, want %s", i, p.Cursors[i], e.Cursor)
				}
			}
			if !slices.Equal(got, tt.want) || p.HasNext != tt.next || p.HasPrev != tt.prev {
				t.Errorf("the page holds %v, next %v, previous %v; want %v, %v, %v", got, p.HasNext, p.HasPrev, tt.want, tt.next, tt.prev)
			}
		})
	}
}

// swept is a log whose cleaner removes all up to a place just before a read.
type swept struct {
	*eventlogtest.Memory
	upto event.Position
}

func (s swept) Read(ctx context.Context, f event.Filter, span eventlog.Span) ([]*event.Event, error) {
	s.Change(func() { s.Oldest = s.upto + 1 })
	return s.Memory.Read(ctx, f, span)
}

func TestLog_does_not_skip_events_that_are_removed_while_it_reads(t *testing.T) {
	t.Parallel()
	text := "a.2"
	for upto, want := range map[event.Position]fault.Code{2: "", 5: fault.CursorExpired} {
		open := func() *eventlogtest.Memory {
			m := eventlogtest.NewMemory()
			m.Append(10)
			return m
		}
		p, err := eventlog.NewLog(swept{open(), upto}).List(asAdmin(t), event.Filter{}, page.Args{After: &text})
		if code := fault.From(err).Code; err == nil && want != "" || err != nil && code != want {
			t.Errorf("List behind 2 with all up to %d removed meanwhile = %d events, %v; want %q", upto, len(p.Items), err, want)
		}
		_, err = eventlog.NewLog(history{swept{open(), upto}}).ListByOrders(asAdmin(t), []uid.Order{"o"}, page.Args{After: &text})
		if code := fault.From(err).Code; err == nil && want != "" || err != nil && code != want {
			t.Errorf("ListByOrders behind 2 with all up to %d removed meanwhile = %v, want %q", upto, err, want)
		}
	}
}

func TestLog_refuses_anonymous_callers(t *testing.T) {
	t.Parallel()
	log := eventlog.NewLog(eventlogtest.NewMemory())
	_, list := log.List(t.Context(), event.Filter{}, page.Args{})
	_, count := log.Count(t.Context(), event.Filter{})
	_, head := log.HeadCursor(t.Context())
	_, orders := log.ListByOrders(t.Context(), []uid.Order{"o"}, page.Args{})
	_, counts := log.CountByOrders(t.Context(), []uid.Order{"o"})
	for name, err := range map[string]error{"List": list, "Count": count, "Cursor": head, "ListByOrders": orders, "CountByOrders": counts} {
		if !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s = %v, want UNAUTHENTICATED", name, err)
		}
	}
}
