package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// receipt is an event that a reader got, and when.
type receipt struct {
	spot

	at time.Time
}

// reader is a client that follows the log for the whole of a test. It stays
// nowhere for long, and goes on at any node behind the last cursor it has.
type reader struct {
	name  string
	by    string // the transport
	token string
	query string
	vars  map[string]any
	wants func(entry) bool // of the log, what it should get

	from int64 // it begins behind this position
	last string

	mu      sync.Mutex
	got     []receipt
	resumed int
	ends    map[string]int // why streams ended
	broken  []string       // what must never be
}

// read follows until ctx ends. Where says at which node it goes on.
func (r *reader) read(ctx context.Context, where func(token string) harness.Caller) {
	for ctx.Err() == nil {
		stay, leave := context.WithTimeout(ctx, stayTime/4+rand.N(2*stayTime))
		why := r.stay(stay, where(r.token))
		leave()
		r.note(func() {
			r.resumed++
			r.ends[why]++
		})
		harness.Pause(ctx, rand.N(20*time.Millisecond))
	}
}

// stay follows at one node until it is left or the stream ends, and says why.
func (r *reader) stay(ctx context.Context, node harness.Caller) (why string) {
	vars := map[string]any{"after": r.last}
	maps.Copy(vars, r.vars)
	l, err := restless[r.by](ctx, node, r.query, vars)
	if err != nil {
		return "no answer"
	}
	for {
		m, err := l.Next()
		switch {
		case ctx.Err() != nil:
			return "left"
		case err != nil:
			return "lost"
		case m.End != "":
			return "end: " + m.End
		case m.Code != "":
			return "code: " + m.Code
		}
		r.take(m, time.Now())
	}
}

// take keeps an event, and the cursor of any message, from which the reader goes
// on. A cursor never falls behind one that was told before.
func (r *reader) take(m harness.Message, at time.Time) {
	p := position(m.Cursor)
	r.note(func() {
		if p <= position(r.last) {
			r.broken = append(r.broken, fmt.Sprintf("%s was told after %s", m.Cursor, r.last))
		}
		if m.Event != nil {
			r.got = append(r.got, receipt{spot{p, harness.Text(m.Event, "id")}, at})
			if c := harness.Text(m.Event, "cursor"); c != m.Cursor {
				r.broken = append(r.broken, fmt.Sprintf("the event %s came with the cursor %s", c, m.Cursor))
			}
		}
	})
	r.last = m.Cursor
}

func (r *reader) note(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// has returns how many events the reader has got.
func (r *reader) has() (n int) {
	r.note(func() { n = len(r.got) })
	return n
}

// faults compares what the reader got with the log.
func (r *reader) faults(log []entry) []string {
	got := make([]spot, len(r.got))
	for i, g := range r.got {
		got[i] = g.spot
	}
	return slices.Concat(r.broken, faults(got, r.due(log)))
}

// due is what the reader should get of the log.
func (r *reader) due(log []entry) (want []spot) {
	for _, e := range log {
		if e.position > r.from && r.wants(e) {
			want = append(want, e.spot)
		}
	}
	return want
}

// position reads a cursor, -1 if it is none.
func position(cursor string) int64 {
	_, digits, _ := strings.Cut(cursor, ".")
	p, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return -1
	}
	return p
}

const eventFields = `{ cursor id type subjectId subjectVersion }`

// seat is a kind of reader: its caller and its query.
type seat struct {
	name  string
	query string
	vars  func(f *fleet) map[string]any
	staff bool
	wants func(f *fleet) func(entry) bool
}

// seats are taken in turn, by each transport. Customers all are the first one.
var seats = []seat{
	{name: "staff, all", staff: true, query: `subscription($after: Cursor) { events(after: $after) ` + eventFields + ` }`,
		wants: func(*fleet) func(entry) bool { return func(entry) bool { return true } }},
	{name: "a customer, all it may see", query: `subscription($after: Cursor) { events(after: $after) ` + eventFields + ` }`,
		wants: func(f *fleet) func(entry) bool {
			return func(e entry) bool { return e.public || e.user == f.people[0].id }
		}},
	{name: "staff, two types", staff: true, query: `subscription($after: Cursor, $types: [EventType!]) { events(after: $after, types: $types) ` + eventFields + ` }`,
		vars: func(*fleet) map[string]any {
			return map[string]any{"types": []any{"ORDER_CANCELLED", "PRODUCT_UPDATED"}}
		},
		wants: func(*fleet) func(entry) bool {
			return func(e entry) bool { return e.kind == "order.cancelled" || e.kind == "product.updated" }
		}},
	{name: "a customer, its orders", query: `subscription($after: Cursor) { orderEvents(after: $after) ` + eventFields + ` }`,
		wants: func(f *fleet) func(entry) bool {
			return func(e entry) bool { return strings.HasPrefix(e.kind, "order.") && e.user == f.people[0].id }
		}},
	{name: "staff, one user", staff: true, query: `subscription($after: Cursor, $user: ID!) { userEvents(userId: $user, after: $after) ` + eventFields + ` }`,
		vars: func(f *fleet) map[string]any { return map[string]any{"user": f.people[0].id} },
		wants: func(f *fleet) func(entry) bool {
			return func(e entry) bool { return e.user == f.people[0].id }
		}},
	{name: "staff, one object", staff: true, query: `subscription($after: Cursor, $id: ID) { events(after: $after, subjectId: $id) ` + eventFields + ` }`,
		vars:  func(f *fleet) map[string]any { return map[string]any{"id": f.scarce[0]} },
		wants: func(f *fleet) func(entry) bool { return func(e entry) bool { return e.subject == f.scarce[0] } }},
}

// newReader returns the reader with the number, which begins behind the cursor.
func (f *fleet) newReader(n int, cursor string) *reader {
	by := []string{"event stream", "socket"}[n%2]
	s := seats[n/2%len(seats)]
	r := &reader{
		name: fmt.Sprintf("reader %d (%s, by %s)", n, s.name, by), by: by, token: f.people[0].key, query: s.query, wants: s.wants(f),
		from: position(cursor), last: cursor, ends: make(map[string]int),
	}
	if s.staff {
		r.token = f.root.Token
	}
	if s.vars != nil {
		r.vars = s.vars(f)
	}
	return r
}

// restless are the transports for readers that do not wait for long at a node
// that is silent: every line that is alive says something twice a second.
var restless = harness.NewTransports(&http.Client{Transport: &http.Transport{
	DisableKeepAlives: true,
	DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: readTimeout}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return impatient{conn}, nil
	},
}})

// impatient is a connection that fails when nothing comes for too long.
type impatient struct{ net.Conn }

// Read implements net.Conn.
func (c impatient) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}
