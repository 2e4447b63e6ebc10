package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/cursor"
)

// receipt is an event that a reader received, and when.
type receipt struct {
	delivery

	at time.Time
}

// reader is a client that follows the log for the whole of a test. It leaves
// each node soon, and resumes at any node after its last cursor.
type reader struct {
	name  string
	by    string // the transport
	token string
	query string
	vars  map[string]any
	wants func(entry) bool // which entries of the log it should receive

	from    int64 // it starts after this position
	last    string
	cursors *cursor.Codec

	mu      sync.Mutex
	got     []receipt
	resumed int
	ends    map[string]int // why streams ended
	broken  []string       // violations of an invariant
}

// read follows the log until ctx ends; where returns the node of the next connection.
func (r *reader) read(ctx context.Context, where func(token string) harness.Caller) {
	for ctx.Err() == nil {
		stay, leave := context.WithTimeout(ctx, stayTime/4+rand.N(2*stayTime))
		why := r.receive(stay, where(r.token))
		leave()
		r.withLock(func() {
			r.resumed++
			r.ends[why]++
		})
		harness.Pause(ctx, rand.N(20*time.Millisecond))
	}
}

// receive follows at one node until the stay time or the stream ends, and returns the reason.
func (r *reader) receive(ctx context.Context, node harness.Caller) (why string) {
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
		r.recordMessage(m, time.Now())
	}
}

// recordMessage records an event, and the cursor of any message, from which the reader
// resumes. A cursor is never lower than an earlier one.
func (r *reader) recordMessage(m harness.Message, at time.Time) {
	p := positionOf(r.cursors, m.Cursor)
	r.withLock(func() {
		if p <= positionOf(r.cursors, r.last) {
			r.broken = append(r.broken, fmt.Sprintf("%s was told after %s", m.Cursor, r.last))
		}
		if m.Event != nil {
			r.got = append(r.got, receipt{delivery{p, harness.Text(m.Event, "id")}, at})
			if c := harness.Text(m.Event, "cursor"); c != m.Cursor {
				r.broken = append(r.broken, fmt.Sprintf("the event %s came with the cursor %s", c, m.Cursor))
			}
		}
	})
	r.last = m.Cursor
}

func (r *reader) withLock(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// countReceived returns how many events the reader has received.
func (r *reader) countReceived() (n int) {
	r.withLock(func() { n = len(r.got) })
	return n
}

// faults compares what the reader received with the log.
func (r *reader) faults(log []entry) []string {
	got := make([]delivery, len(r.got))
	for i, g := range r.got {
		got[i] = g.delivery
	}
	return slices.Concat(r.broken, compareDeliveries(got, r.expected(log)))
}

// expected returns what the reader should receive of the log.
func (r *reader) expected(log []entry) (want []delivery) {
	for _, e := range log {
		if e.position > r.from && r.wants(e) {
			want = append(want, e.delivery)
		}
	}
	return want
}

// positionOf returns the position of a client's cursor, -1 if it is none.
func positionOf(codec *cursor.Codec, text string) int64 {
	at, err := codec.Decode(text)
	if err != nil || strings.Contains(text, ".") {
		return -1
	}
	return int64(at.Position)
}

const eventFields = `{ cursor id type subjectId subjectVersion }`

// readerSpec is a kind of reader: its caller and its query.
type readerSpec struct {
	name  string
	query string
	vars  func(f *fleet) map[string]any
	staff bool
	wants func(f *fleet) func(entry) bool
}

// readerSpecs are used round-robin, by each transport. All customers are the first one.
var readerSpecs = []readerSpec{
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

// newReader returns the reader with the number, which starts after the cursor.
func (f *fleet) newReader(n int, after string) *reader {
	by := []string{"event stream", "socket"}[n%2]
	s := readerSpecs[n/2%len(readerSpecs)]
	r := &reader{
		name: fmt.Sprintf("reader %d (%s, by %s)", n, s.name, by), by: by, token: f.people[0].key, query: s.query, wants: s.wants(f),
		from: positionOf(f.cursors, after), last: after, cursors: f.cursors, ends: make(map[string]int),
	}
	if s.staff {
		r.token = f.root.Token
	}
	if s.vars != nil {
		r.vars = s.vars(f)
	}
	return r
}

// restless are the transports of readers that leave a silent node soon: every connection
// that is alive carries a keep-alive twice a second.
var restless = harness.NewTransports(&http.Client{Transport: &http.Transport{
	DisableKeepAlives: true,
	DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{Timeout: readTimeout}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return stallingConn{conn}, nil
	},
}})

// stallingConn is a connection whose reads time out when it is silent.
type stallingConn struct{ net.Conn }

// Read implements net.Conn.
func (c stallingConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}
