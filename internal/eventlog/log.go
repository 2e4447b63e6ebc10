// Package eventlog owns the event log on a node: reads of the log, the sequencer that
// assigns positions, the hub that fans events out to subscriptions, and retention.
//
// The path of an event:
//
//	commit -> Pipeline.EventsAppended -> Sequencer (one node, under a lease) -> position
//	       -> Notifier (other nodes)  -> Hub (each node): ring -> subscription group -> Follower.Next
//
// A position is dense, from 1, and assigned after the commit, so that no reader meets a gap.
// On SQLite the writing transaction assigns it. A notification between nodes may be lost,
// repeated and reordered: a hub also polls, and fills gaps from the log. What a client sees is
// decided per event, for its principal of that moment (Follower).
package eventlog

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// State is the extent of the log.
type State struct {
	Timeline string
	Oldest   event.Position // of the events that are kept; Head+1 if there are none
	Head     event.Position // the newest position; 0 if there is none

	// Behind is the age of the oldest committed event without a position; 0 if there is none,
	// and where the writer assigns them.
	Behind time.Duration
}

// Span is a part of the log: at most Limit events strictly between two positions.
type Span struct {
	After    event.Position
	Before   event.Position // 0: up to the end
	Backward bool           // the last ones, in reverse order
	Limit    int
}

// MaxCount is how far events are counted, as the rows of all lists.
const MaxCount = page.MaxCount

// MaxTimed is how many events may have happened in the range of time of a filter that has no subject and no actor: in the
// order of the log they are all read for a page.
const MaxTimed = 100_000

// Store reads the log. It is declared here, where it is used. It shows only
// events that have a position, complete with Cursor, Public and Touched.
type Store interface {
	// State returns the extent of the log.
	State(ctx context.Context) (State, error)
	// Pending returns committed events that have no position yet, at most limit: of each the ID,
	// Type and SubjectID only. There are none where the writer assigns positions.
	Pending(ctx context.Context, limit int) ([]*event.Event, error)
	// Read returns the events of the span that match, in order of position. An
	// event is never shown before those ahead of it. BAD_INPUT (TooManyTimed) for a range of time with more
	// than MaxTimed events, unless the filter has an id or an actor.
	Read(ctx context.Context, f event.Filter, s Span) ([]*event.Event, error)
	// ReadOrders is Read for the events of each of the orders, in one query.
	ReadOrders(ctx context.Context, orders []uid.Order, f event.Filter, s Span) (map[uid.Order][]*event.Event, error)
	// Count returns how many events match; MaxCount+1 stands for all numbers above MaxCount. It refuses what Read does.
	Count(ctx context.Context, f event.Filter) (int, error)
	// CountOrders is Count for the events of each of the orders, in one query. Orders
	// without any may be left out.
	CountOrders(ctx context.Context, orders []uid.Order, f event.Filter) (map[uid.Order]int, error)
	// ByIDs returns the events that exist.
	ByIDs(ctx context.Context, ids []uid.Event) (map[uid.Event]*event.Event, error)
}

// Log reads stored events. State, ReadAfter and After serve the server's own readers; the other
// methods serve a caller, and return only events that it may see.
type Log struct {
	store  Store
	beyond *beyondHead // nil: not counted
}

// readTimeout bounds short reads of background readers: a connection that was lost silently
// would block them for ever.
const readTimeout = 5 * time.Second

// NewLog returns the log of the store.
func NewLog(store Store) *Log { return &Log{store: store} }

// State returns the extent of the log, within five seconds.
func (l *Log) State(ctx context.Context) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return l.store.State(ctx)
}

// ReadAfter returns the first events after the position, at most limit, within five seconds. A
// reader that fails asks for fewer (ShrinkBatch), in case they are too large.
func (l *Log) ReadAfter(ctx context.Context, p event.Position, limit int) ([]*event.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return l.store.Read(ctx, event.Filter{}, Span{After: p, Limit: limit})
}

// pending returns the committed events without a position, within five seconds, and whether these
// are all.
func (l *Log) pending(ctx context.Context) (events []*event.Event, all bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	events, err = l.store.Pending(ctx, maxPending)
	return events, len(events) < maxPending, err
}

// maxPending bounds how many events without a position a hub reads at a time. As many are
// assigned one in a batch of the sequencer.
const maxPending = 2000

// ShrinkBatch returns the limit of the next read after so many failures in a row.
func ShrinkBatch(limit, failures int) int { return max(1, limit>>min(failures, 32)) }

// checkCursor reports why a reader cannot resume after a cursor: CURSOR_UNKNOWN for one of
// another timeline or beyond the head, CURSOR_EXPIRED for one after which events were removed.
func (s State) checkCursor(c event.Cursor) error {
	switch {
	case c.Timeline != s.Timeline || c.Position > s.Head:
		return errUnknown()
	case c.Position+1 < s.Oldest:
		return errExpired(event.Cursor{Timeline: s.Timeline, Position: s.Oldest - 1})
	}
	return nil
}

// HeadCursor returns the head of the log, for a signed-in caller.
func (l *Log) HeadCursor(ctx context.Context) (event.Cursor, error) {
	if auth.From(ctx) == nil {
		return event.Cursor{}, auth.NotSignedIn(ctx)
	}
	s, err := l.State(ctx)
	return event.Cursor{Timeline: s.Timeline, Position: s.Head}, err
}

// List returns the first events after the cursor, or from the oldest on, that
// match and that the caller may see.
func (l *Log) List(ctx context.Context, f event.Filter, args page.Args) (page.Page[*event.Event], error) {
	var none page.Page[*event.Event]
	f, err := restrictToVisible(ctx, f)
	if err != nil {
		return none, err
	}
	w, span, marks, err := l.pageSpan(args)
	if err != nil {
		return none, err
	}
	found, err := l.store.Read(ctx, f, span)
	if err != nil {
		return none, err
	}
	if err := l.verifyCursors(ctx, marks); err != nil {
		return none, err
	}
	return toPage(w, span, found), nil
}

// Count returns how many events List would show on all its pages; MaxCount+1 stands for all numbers
// above MaxCount.
func (l *Log) Count(ctx context.Context, f event.Filter) (int, error) {
	f, err := restrictToVisible(ctx, f)
	if err != nil {
		return 0, err
	}
	return l.store.Count(ctx, f)
}

// ListByOrders returns for each of the orders a page of its history, as far as
// the caller may see it. The arguments' cursors are those of events.
func (l *Log) ListByOrders(ctx context.Context, orders []uid.Order, args page.Args) (map[uid.Order]page.Page[*event.Event], error) {
	f, err := restrictToVisible(ctx, event.Filter{})
	if err != nil {
		return nil, err
	}
	w, span, marks, err := l.pageSpan(args)
	if err != nil {
		return nil, err
	}
	found, err := l.store.ReadOrders(ctx, orders, f, span)
	if err != nil {
		return nil, err
	}
	if err := l.verifyCursors(ctx, marks); err != nil {
		return nil, err
	}
	pages := make(map[uid.Order]page.Page[*event.Event], len(orders))
	for _, id := range orders {
		pages[id] = toPage(w, span, found[id])
	}
	return pages, nil
}

// CountByOrders is Count for many orders at once, for the history of each.
func (l *Log) CountByOrders(ctx context.Context, orders []uid.Order) (map[uid.Order]int, error) {
	f, err := restrictToVisible(ctx, event.Filter{})
	if err != nil {
		return nil, err
	}
	return l.store.CountOrders(ctx, orders, f)
}

// pageSpan returns what to read for a page: one event more than it has, to learn
// whether there are others. The cursors are to be verified after the read.
func (l *Log) pageSpan(args page.Args) (w page.Window, span Span, marks []cursorArgument, err error) {
	w, err = page.Args{First: args.First, Last: args.Last}.Window("")
	span = Span{Limit: w.Limit + 1, Backward: w.Backward}
	if err != nil {
		return w, span, nil, err
	}
	if args.After != nil {
		if marks, err = parseCursorArgument(marks, "after", *args.After); err != nil {
			return w, span, nil, err
		}
		span.After = marks[0].cursor.Position
	}
	if args.Before == nil {
		return w, span, marks, nil
	}
	if marks, err = parseCursorArgument(marks, "before", *args.Before); err != nil {
		return w, span, nil, err
	}
	if span.Before = marks[len(marks)-1].cursor.Position; span.Before == 0 {
		span.Before, span.After = 1, 1 // ahead of the first event there is nothing
	}
	return w, span, marks, nil
}

// cursorArgument is a cursor of a caller, with the name of its argument.
type cursorArgument struct {
	argument string
	cursor   event.Cursor
}

func parseCursorArgument(marks []cursorArgument, argument, text string) ([]cursorArgument, error) {
	c, err := event.ParseCursor(text)
	if err != nil {
		return nil, fault.From(err).At(argument)
	}
	return append(marks, cursorArgument{argument, c}), nil
}

// verifyCursors checks cursors after the read: retention could remove events between a check
// and the read unnoticed.
func (l *Log) verifyCursors(ctx context.Context, marks []cursorArgument) error {
	if len(marks) == 0 {
		return nil
	}
	s, err := l.State(ctx)
	if err != nil {
		return err
	}
	for _, m := range marks {
		if err := l.beyond.check(s, m.cursor); err != nil {
			return fault.From(err).At(m.argument)
		}
	}
	return nil
}

// ByIDs returns those of the events that exist and that the caller may see.
func (l *Log) ByIDs(ctx context.Context, ids []uid.Event) (map[uid.Event]*event.Event, error) {
	audience := event.AudienceOf(auth.From(ctx))
	found, err := l.store.ByIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	seen := make(map[uid.Event]*event.Event, len(found))
	for id, e := range found {
		if audience.Sees(e) {
			seen[id] = e
		}
	}
	return seen, nil
}

// restrictToVisible narrows a filter to what the caller may see.
func restrictToVisible(ctx context.Context, f event.Filter) (event.Filter, error) {
	p := auth.From(ctx)
	if p == nil {
		return f, auth.NotSignedIn(ctx)
	}
	f.Audience = event.AudienceOf(p)
	return f, checkFilter(p, f)
}

// checkFilter refuses to filter by what the caller may not see. Customers see only of themselves that they did
// something, and how much happens on the whole is not for them: a range of time needs a subject or their own actor.
func checkFilter(p *auth.Principal, f event.Filter) error {
	if p.IsStaff() || p.Has(auth.Service) {
		return nil
	}
	if f.Actor != "" && f.Actor != string(p.UserID) {
		return fault.New(fault.Forbidden, "This needs the role STAFF: without it, events can be filtered by your own id as the actor.").At("actor")
	}
	for argument, at := range map[string]*time.Time{"since": f.Since, "until": f.Until} {
		if at != nil && f.SubjectID == "" && f.Actor == "" {
			return fault.New(fault.Forbidden, "This needs the role STAFF: without it, events can be filtered by time for a subject, or for your own id as the actor.").At(argument)
		}
	}
	return nil
}

// toPage makes a page of the events that were read, one more than its size.
func toPage(w page.Window, s Span, found []*event.Event) page.Page[*event.Event] {
	more := len(found) > w.Limit
	if more {
		found = found[:w.Limit]
	}
	p := page.Page[*event.Event]{Items: make([]*event.Event, len(found)), Cursors: make([]string, len(found)), HasNext: more, HasPrev: s.After > 0}
	if s.Backward {
		p.HasNext, p.HasPrev = s.Before > 0, more
	}
	for i, e := range found {
		if s.Backward {
			i = len(found) - 1 - i
		}
		p.Items[i], p.Cursors[i] = e, e.Cursor.String()
	}
	return p
}
