package attack

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// cursorReader is a customer that collects every text in which a cursor may be, and the cursors in it.
type cursorReader struct {
	harness.Caller

	t     *testing.T
	codec *cursor.Codec
	order string
}

const (
	readCursors = `query($after: Cursor, $page: String, $order: ID!) {
		eventCursor
		events(after: $after, first: 100) { edges { cursor node { cursor type subjectId } } pageInfo { startCursor endCursor } }
		order(id: $order) { events(after: $page) { edges { cursor node { cursor } } pageInfo { startCursor endCursor } } } }`
	followOwn = `subscription($after: Cursor) { orderEvents(after: $after) { cursor type } }`
)

// read returns all that the customer sees after the cursor, by how it sees it.
func (c *cursorReader) read(after string) map[string]string {
	c.t.Helper()
	seen := map[string]string{}
	answer, err := c.Send(c.t.Context(), readCursors, harness.Fields{"after": after, "page": after, "order": c.order})
	if err != nil {
		c.t.Fatal(err)
	}
	seen["GraphQL"] = fmt.Sprint(answer.Data, answer.Errors)
	rest := c.MustREST(c.t, http.StatusOK, "GET /events?limit=1&after="+url.QueryEscape(after), "")
	seen["REST"] = fmt.Sprint(string(rest.Body), rest.Header)
	for transport := range harness.Transports {
		s := harness.Subscribe(c.t, transport, c.Caller, followOwn, harness.Fields{"after": after})
		m := harness.MustNext(c.t, s)
		seen[transport] = fmt.Sprint(m.Cursor, m.Event, m.Code)
	}
	return seen
}

// idle returns the cursor that a subscription without events brings, which is that of others' events.
func (c *cursorReader) idle(transport, after string) string {
	c.t.Helper()
	s := harness.Subscribe(c.t, transport, c.Caller, followOwn, harness.Fields{"after": after})
	for {
		m, err := s.Next()
		if err != nil || m.Code != "" {
			c.t.Fatalf("%s: %+v, %v", transport, m, err)
		}
		if m.IsProgress() {
			return m.Cursor
		}
	}
}

// refusals returns the codes with which the cursor is refused, by the transport.
func (c *cursorReader) refusals(after string) map[string]string {
	c.t.Helper()
	codes := map[string]string{
		"a query":       c.RefusalCode(c.t, harness.ReadEvents, harness.Fields{"after": after}),
		"a nested list": c.RefusalCode(c.t, `query($order: ID!, $page: String) { order(id: $order) { events(after: $page) { nodes { id } } } }`, harness.Fields{"order": c.order, "page": after}),
	}
	for transport := range harness.Transports {
		codes[transport] = harness.MustNext(c.t, harness.Subscribe(c.t, transport, c.Caller, followOwn, harness.Fields{"after": after})).Code
	}
	for name, line := range map[string]string{"REST": "GET /events?after=", "REST, by its other name": "GET /events?cursor="} {
		a, err := c.REST(c.t.Context(), line+url.QueryEscape(after), "")
		if err != nil {
			c.t.Fatal(err)
		}
		codes[name] = harness.Text(a.JSON(c.t), "code")
	}
	return codes
}

// opaqueCursor matches the cursors of clients.
var opaqueCursor = regexp.MustCompile(`\bc[A-Za-z0-9_-]{22}\b`)

// TestCursors_do_not_count_the_events_of_others has a customer read its cursors over each transport while another one is busy: what it sees names
// no position, and no cursor but those that it was given is followed. The cursors stay the same on another node, after a restart and under another
// master key.
func TestCursors_do_not_count_the_events_of_others(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_LIMIT_KEEP_ALIVE=300ms")
		root := harness.SignInAdmin(t, p)
		harness.CreateProduct(t, root, "TEA", 100)
		ada, bob := harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "bob")
		place := func(c harness.Caller) string {
			return harness.Text(c.Do(t, harness.PlaceOrder, harness.Fields{"items": []any{harness.OrderLine("TEA", 1)}}), "placeOrder", "order", "id")
		}
		start := root.LogHead(t)
		r := &cursorReader{Caller: ada, t: t, codec: harness.Cursors(t, database), order: place(ada)}
		for range 3 {
			place(bob)
		}
		head := root.LogHead(t)
		at := harness.DecodeCursor(t, r.codec, head)
		own := harness.DecodeCursor(t, r.codec, start)

		seen := r.read(start)
		for transport := range harness.Transports {
			seen[transport+", idle"] = r.idle(transport, start)
		}
		for by, text := range seen {
			cursors := opaqueCursor.FindAllString(text, -1)
			if strings.Contains(text, at.Timeline) || len(cursors) == 0 {
				t.Errorf("%s shows a customer %s", by, text)
			}
			for _, c := range cursors {
				if got := harness.DecodeCursor(t, r.codec, c); got.Timeline != at.Timeline || got.Position <= own.Position || got.Position > at.Position {
					t.Errorf("%s shows the cursor %s, which is %v", by, c, got)
				}
			}
		}
		if got := opaqueCursor.FindString(seen["socket"]); got != opaqueCursor.FindString(seen["event stream"]) || !strings.Contains(seen["GraphQL"], got) {
			t.Errorf("the event of ada has other cursors elsewhere than %s", got)
		}
		r.checkForged(at, head)
		r.checkResume(start, place)
		r.checkElsewhere(p, database, seen["socket"])
	})
}

// checkForged follows cursors that the server has not given to the customer.
func (c *cursorReader) checkForged(head event.Cursor, text string) {
	c.t.Helper()
	beyond, elsewhere := head, head
	beyond.Position += 1000
	elsewhere.Timeline = strings.Repeat("0", len(head.Timeline))
	flipped := []byte(text)
	flipped[5] = map[bool]byte{true: 'B', false: 'A'}[flipped[5] == 'A']
	for name, forged := range map[string]string{
		"the plain cursor": head.String(), "a plain cursor of the start": head.Timeline + ".0", "one beyond the head": c.codec.Encode(beyond),
		"one of another timeline": c.codec.Encode(elsewhere), "one of another installation": cursor.NewRandomCodec().Encode(head), "a changed one": string(flipped),
	} {
		for by, code := range c.refusals(forged) {
			if code != "CURSOR_UNKNOWN" {
				c.t.Errorf("%s by %s: %q, want CURSOR_UNKNOWN", name, by, code)
			}
		}
	}
}

// checkResume follows by each transport, leaves, and comes back after events.
func (c *cursorReader) checkResume(start string, place func(harness.Caller) string) {
	c.t.Helper()
	for transport := range harness.Transports {
		after := harness.MustNext(c.t, harness.Subscribe(c.t, transport, c.Caller, followOwn, harness.Fields{"after": start})).Cursor
		place(c.Caller)
		s := harness.Subscribe(c.t, transport, c.Caller, `subscription($after: Cursor) { orderEvents(after: $after) { cursor type subjectId } }`, harness.Fields{"after": after})
		m := harness.MustNext(c.t, s)
		if first := harness.MustNext(c.t, harness.Subscribe(c.t, transport, c.Caller, followOwn, harness.Fields{"after": start})); first.Cursor != after || m.Cursor == after || m.Event == nil {
			c.t.Errorf("%s goes on after %s with %+v", transport, after, m)
		}
	}
}

// checkElsewhere reads the event of what was seen again on a second node, and after a restart under another master key.
func (c *cursorReader) checkElsewhere(p *testenv.Process, database, seen string) {
	c.t.Helper()
	want := opaqueCursor.FindString(seen)
	read := func(where string) {
		c.t.Helper()
		got := harness.Text(c.Do(c.t, `query($order: ID!) { order(id: $order) { events(first: 1) { nodes { cursor } } } }`, harness.Fields{"order": c.order}), "order", "events", "nodes", 0, "cursor")
		if code := c.RefusalCode(c.t, harness.ReadEvents, harness.Fields{"after": want}); got != want || code != "" {
			c.t.Errorf("%s the cursor of the event is %s, want %s, which is refused with %q", where, got, want, code)
		}
	}
	if !strings.HasPrefix(database, "sqlite:") {
		c.BaseURL = testenv.Server(c.t, harness.Settings(database)...).BaseURL
		read("on another node")
	}
	file := filepath.Join(c.t.TempDir(), "old")
	if err := os.WriteFile(file, []byte(strings.Repeat("k", 43)+"\n"), 0o600); err != nil {
		c.t.Fatal(err)
	}
	next := append(harness.Settings(database), "BACKPLANE_SECRET_KEY="+strings.Repeat("n", 43))
	if out, err := runIn(c.t, c.t.TempDir(), next, "keys", "rotate-master", "--old", file); err != nil {
		c.t.Fatalf("keys rotate-master: %v\n%s", err, out)
	}
	p.Stop()
	c.BaseURL = testenv.Server(c.t, next...).BaseURL
	read("after a restart under another master key")
}
