package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// exported is an event as a consumer of a broker got it.
type exported struct {
	ID      string `json:"id"`
	Subject string `json:"subject"`
	Cursor  string `json:"cursor"`
}

// outlet is a broker that a server exports to.
type outlet struct {
	broker *testenv.Broker
	sink   string // for BACKPLANE_SINKS
	read   func(t *testing.T) []exported
	remake func(t *testing.T) // deletes the target, and makes it again as an operator does: empty, with its bindings
}

// outlets starts a broker of each kind.
func outlets(t *testing.T) map[string]*outlet {
	t.Helper()
	all := map[string]*outlet{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, start := range map[string]func(*testing.T) *outlet{"Redis": redisOutlet, "RabbitMQ": rabbitOutlet, "NATS": natsOutlet} {
		wg.Go(func() {
			o := start(t)
			mu.Lock()
			defer mu.Unlock()
			all[name] = o
		})
	}
	wg.Wait()
	if t.Failed() || t.Skipped() {
		t.FailNow()
	}
	return all
}

func exportTo(all map[string]*outlet) string {
	var urls []string
	for _, o := range all {
		urls = append(urls, o.sink)
	}
	return "BACKPLANE_SINKS=" + strings.Join(urls, ",")
}

func redisOutlet(t *testing.T) *outlet {
	b := testenv.RedisBroker(t)
	do := func(t *testing.T, fn func(*redis.Client) error) {
		t.Helper()
		opts, err := redis.ParseURL(b.URL)
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(opts)
		defer client.Close()
		if err := fn(client); err != nil {
			t.Fatal(err)
		}
	}
	return &outlet{
		broker: b, sink: b.URL + "?stream=events",
		read: func(t *testing.T) (all []exported) {
			do(t, func(client *redis.Client) error {
				entries, err := client.XRange(t.Context(), "events", "-", "+").Result()
				for _, e := range entries {
					all = append(all, exported{fmt.Sprint(e.Values["id"]), fmt.Sprint(e.Values["subject"]), fmt.Sprint(e.Values["cursor"])})
				}
				return err
			})
			return all
		},
		remake: func(t *testing.T) {
			do(t, func(client *redis.Client) error {
				return errors.Join(client.Del(t.Context(), "events").Err(), client.XGroupCreateMkStream(t.Context(), "events", "readers", "0").Err())
			})
		},
	}
}

func rabbitOutlet(t *testing.T) *outlet {
	b := testenv.RabbitMQ(t)
	open := func() (*amqp.Connection, *amqp.Channel, error) {
		conn, err := amqp.Dial(b.URL)
		if err != nil {
			return nil, nil, err
		}
		ch, err := conn.Channel()
		return conn, ch, err
	}
	var all []exported
	remake := func() error {
		conn, ch, err := open()
		if err != nil {
			return err
		}
		defer conn.Close()
		all, err = nil, ch.ExchangeDelete("backplane", false, false)
		if err == nil {
			err = ch.ExchangeDeclare("backplane", amqp.ExchangeTopic, true, false, false, false, nil)
		}
		if err == nil {
			_, err = ch.QueueDeclare("all", true, false, false, false, nil)
		}
		if err == nil {
			err = ch.QueueBind("all", "#", "backplane", false, nil)
		}
		return err
	}
	if err := remake(); err != nil {
		t.Error(err)
		return nil
	}
	b.FlushDefinitions()
	return &outlet{
		broker: b, sink: b.URL,
		read: func(t *testing.T) []exported {
			conn, ch, err := open()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for {
				m, ok, err := ch.Get("all", true)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					return all
				}
				all = append(all, exported{fmt.Sprint(m.Headers["cloudEvents_id"]), fmt.Sprint(m.Headers["cloudEvents_subject"]), fmt.Sprint(m.Headers["cloudEvents_cursor"])})
			}
		},
		remake: func(t *testing.T) {
			if err := remake(); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func natsOutlet(t *testing.T) *outlet {
	b := testenv.NATS(t)
	open := func(t *testing.T) jetstream.JetStream {
		t.Helper()
		conn, err := nats.Connect(b.URL)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		js, err := jetstream.New(conn)
		if err != nil {
			t.Fatal(err)
		}
		return js
	}
	return &outlet{
		broker: b, sink: b.URL,
		read: func(t *testing.T) (all []exported) {
			stream, err := open(t).Stream(t.Context(), "BACKPLANE")
			if err != nil {
				t.Fatal(err)
			}
			consumer, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
			if err != nil {
				t.Fatal(err)
			}
			for n := stream.CachedInfo().State.Msgs; uint64(len(all)) < n; {
				m, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
				if err != nil {
					t.Fatal(err)
				}
				var e exported
				if err := json.Unmarshal(m.Data(), &e); err != nil {
					t.Fatal(err)
				}
				all = append(all, e)
			}
			return all
		},
		remake: func(t *testing.T) {
			js := open(t)
			err := js.DeleteStream(t.Context(), "BACKPLANE")
			if err == nil {
				_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "BACKPLANE", Subjects: []string{"backplane.>"}})
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	}
}

// wholeLog returns the log as an ADMIN sees it, with the cursors that sinks export.
func wholeLog(t *testing.T, c harness.Caller, database string) (all []exported) {
	t.Helper()
	codec := harness.Cursors(t, database)
	for after, more := any(nil), true; more; {
		page := harness.At(c.Do(t, harness.ReadEvents, map[string]any{"after": after, "first": 100}), "events")
		edges, _ := harness.At(page, "edges").([]any)
		for _, e := range edges {
			n := harness.At(e, "node")
			all = append(all, exported{harness.Text(n, "id"), harness.Text(n, "subjectId"), harness.DecodeCursor(t, codec, harness.Text(n, "cursor")).String()})
		}
		after, more = harness.At(page, "pageInfo", "endCursor"), harness.At(page, "pageInfo", "hasNextPage") == true
	}
	return all
}

// firsts returns the events in the order in which they came first, by subject.
func firsts(all []exported) map[string][]exported {
	seen, by := map[exported]bool{}, map[string][]exported{}
	for _, e := range all {
		if !seen[e] {
			seen[e] = true
			by[e.Subject] = append(by[e.Subject], e)
		}
	}
	return by
}

// checkExports waits until every broker has the whole log, and compares: nothing is
// missing, nothing is invented, and each subject's events came in their order.
func checkExports(t *testing.T, c harness.Caller, database string, all map[string]*outlet) {
	t.Helper()
	log := wholeLog(t, c, database)
	want := firsts(log)
	for name, o := range all {
		got := o.read(t)
		for ; !slices.Contains(got, log[len(log)-1]) && t.Context().Err() == nil; got = o.read(t) {
			harness.Pause(t.Context(), 100*time.Millisecond)
		}
		by := firsts(got)
		for subject, events := range want {
			if !slices.Equal(by[subject], events) {
				t.Errorf("%s has other events of %s, or in another order: %d, want %d", name, subject, len(by[subject]), len(events))
			}
		}
		if len(by) != len(want) {
			t.Errorf("%s has events of %d subjects, want %d", name, len(by), len(want))
		}
		t.Logf("%s: %d events, %d of them repeats", name, len(got), len(got)-len(log))
	}
}

// products adds what load changes.
func products(t *testing.T, c harness.Caller) (ids []string) {
	t.Helper()
	for i := range 5 {
		ids = append(ids, harness.CreateProduct(t, c, fmt.Sprint("LOAD", i), 1000))
	}
	return ids
}

// load changes the products again and again, as many callers, until stop is
// called. A client that gets no answer goes on with the next node.
func load(t *testing.T, c harness.Caller, products []string, callers int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				_, _ = c.Send(ctx, `mutation($id: ID!) { adjustStock(input: {productId: $id, by: 1}) { userErrors { code } } }`,
					map[string]any{"id": products[n%len(products)]})
				harness.Pause(ctx, 5*time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// said returns how many lines of the server's log hold all of the words.
func said(p *testenv.Process, words ...string) (n int) {
	for line := range strings.Lines(p.Logs()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}

func TestServer_exports_everything_though_brokers_stop(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		all := outlets(t)
		harness.RunCommand(t, database, "migrate")
		p := testenv.Server(t, append(harness.Settings(database), exportTo(all))...)
		root := harness.SignInAdmin(t, p)
		stop := load(t, root, products(t, root), 4)
		for name, o := range all {
			o.broker.Halt()
			harness.Eventually(t, "the server says that "+name+" is gone", func() bool {
				return said(p, "sink export stalled", "sink="+strings.ToLower(name)) > 0
			})
			harness.Pause(t.Context(), time.Duration(harness.Size(1, 60))*time.Second)
			o.broker.Start()
		}
		stop()
		checkExports(t, root, database, all)
		if n := said(p, "sink export stalled"); n != len(all) {
			t.Errorf("the server logged %d stalled sinks, want once for each of %d:\n%s", n, len(all), p.Logs())
		}
		out, err := p.Run("sinks")
		if err != nil || !strings.Contains(out, "redis://") || strings.Contains(out, "guest") || strings.Contains(out, "none") {
			t.Errorf("sinks: %v\n%s", err, out)
		}
		checkRewound(t, p, root, database, all)
	})
}

// checkRewound loses what the brokers have, and exports the later half of the log again.
func checkRewound(t *testing.T, p *testenv.Process, root harness.Caller, database string, all map[string]*outlet) {
	t.Helper()
	log := wholeLog(t, root, database)
	last := len(log) / 2
	p.Stop()
	for name, o := range all {
		o.remake(t)
		out, err := p.Run("sinks", "rewind", strings.ToLower(name), log[last].Cursor)
		if err != nil || !strings.Contains(out, "exports the events after "+log[last].Cursor+" again") {
			t.Errorf("sinks rewind %s: %v\n%s", name, err, out)
		}
	}
	p.Start()
	want := firsts(log[last+1:])
	for name, o := range all {
		var got []exported
		harness.Eventually(t, name+" has the last event again", func() bool {
			got = o.read(t)
			return slices.Contains(got, log[len(log)-1])
		})
		by := firsts(got)
		for subject, events := range want {
			if !slices.Equal(by[subject], events) {
				t.Errorf("%s has other events of %s after the rewinding, or in another order: %d, want %d", name, subject, len(by[subject]), len(events))
			}
		}
		if slices.Contains(got, log[last]) || len(by) != len(want) {
			t.Errorf("%s has events again from before the cursor: %d of %d subjects, want %d of %d", name, len(got), len(by), len(log)-last-1, len(want))
		}
	}
}

func TestServer_goes_on_exporting_at_another_node(t *testing.T) {
	t.Parallel()
	all := outlets(t)
	database := testenv.Postgres(t)
	harness.RunCommand(t, database, "migrate")
	env := append(harness.Settings(database), exportTo(all), "BACKPLANE_LOG_LEVEL=info")
	owner := testenv.Server(t, env...)
	exports := func(p *testenv.Process, times int) {
		harness.Eventually(t, "the node exports to all sinks", func() bool { return said(p, "sink export started") >= times*len(all) })
	}
	exports(owner, 1)
	other := testenv.Server(t, env...)
	root := harness.SignInAdmin(t, other)
	shop := products(t, root)
	stop := load(t, root, shop, 4)

	owner.Freeze() // long enough that another takes over
	exports(other, 1)
	owner.Thaw()
	harness.Eventually(t, "the former owner sees that it has lost the leases", func() bool {
		return said(owner, "sink export stopped") == len(all)
	})
	owner.Restart()
	stop()
	stop = load(t, harness.SignInAdmin(t, owner), shop, 4)
	other.Kill()
	exports(owner, 2)
	stop()
	checkExports(t, harness.SignInAdmin(t, owner), database, all)
}

func TestServer_serves_without_its_brokers_and_forgets_sinks(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		harness.RunCommand(t, database, "migrate")
		unreachable := (&url.URL{Scheme: "redis", User: url.UserPassword("u", "hunter2"), Host: fmt.Sprint("127.0.0.1:", testenv.FreePort(t)), RawQuery: "name=gone"}).String()
		p := testenv.Server(t, append(harness.Settings(database), "BACKPLANE_SINKS="+unreachable)...)
		root := harness.SignInAdmin(t, p)
		harness.CreateProduct(t, root, "TEA", 1)
		cursor := root.LogHead(t)
		harness.Eventually(t, "the sink has a place", func() bool {
			out, err := p.Run("sinks")
			return err == nil && strings.Contains(out, "gone") && !strings.Contains(out, "none yet")
		})
		if out, err := p.Run("sinks", "forget", "gone"); err == nil || !strings.Contains(out, "a server is exporting to it") {
			t.Errorf("forgetting a sink that is in use: %v\n%s", err, out)
		}
		p.Stop()
		if !strings.Contains(p.Logs(), "sink=gone") || strings.Contains(p.Logs(), "hunter2") {
			t.Errorf("the server does not name the sink, or shows its password:\n%s", p.Logs())
		}
		if out := harness.RunCommand(t, database, "sinks"); !strings.Contains(out, "not configured here") {
			t.Errorf("sinks without the setting says:\n%s", out)
		}
		if out, err := p.Run("doctor"); err != nil {
			t.Errorf("doctor, of a sink that is configured: %v\n%s", err, out)
		}
		if out := failing(t, database, "doctor"); !strings.Contains(out, "sink gone has an offset") {
			t.Errorf("doctor, of a sink that is not configured, says:\n%s", out)
		}
		checkRewind(t, database, cursor)
		harness.RunCommand(t, database, "sinks", "forget", "gone")
		if out := harness.RunCommand(t, database, "sinks"); !strings.Contains(out, "there are no sinks") {
			t.Errorf("sinks after forgetting says:\n%s", out)
		}
	})
}

// failing runs a command of the binary that must not succeed.
func failing(t *testing.T, database string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t), args...)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), harness.Settings(database)...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("backplane %s succeeded:\n%s", strings.Join(args, " "), out)
	}
	return string(out)
}

// checkRewind rewinds a sink that has exported nothing, which only the refusals show.
func checkRewind(t *testing.T, database, head string) {
	t.Helper()
	for cursor, want := range map[string]string{
		head: "has no offset after", harness.DecodeCursor(t, harness.Cursors(t, database), head).String(): "has no offset after", "0a0b0c.1": "of another timeline", "x": "cursor",
	} {
		if out := failing(t, database, "sinks", "rewind", "gone", cursor); !strings.Contains(out, want) {
			t.Errorf("sinks rewind gone %s says:\n%s, want %q", cursor, out, want)
		}
	}
}
