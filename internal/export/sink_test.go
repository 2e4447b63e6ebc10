package export_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/export"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// testBroker is a broker with a sink into it, and a consumer of the broker's own kind.
type testBroker struct {
	broker *testenv.Broker // the test's own, which it may halt; nil for a shared one
	url    string
	topic  string // the exchange, if the broker has such
	open   func(t testing.TB) export.Sink
	// read returns all that the broker holds, in its order. It may be called again
	// and then returns what it has returned before, too.
	read func(t testing.TB) []received
	// remove deletes the stream or exchange.
	remove func(t testing.TB)
	// repeats says that the broker stores what it is sent twice, twice.
	repeats bool
}

// received is an event as a consumer gets it: attributes and, as data, the data.
type received map[string]string

const source = "https://shop.example/backplane"

// testBrokers starts each kind of broker, or finds one that tests share.
func testBrokers() map[string]func(t testing.TB) *testBroker {
	return map[string]func(t testing.TB) *testBroker{"Redis": newRedisBroker, "RabbitMQ": sharedRabbitBroker, "NATS": newNATSBroker}
}

// eachBroker runs a test in parallel with each kind of broker.
func eachBroker(t *testing.T, test func(t *testing.T, o *testBroker)) {
	t.Helper()
	eachOf(t, testBrokers(), test)
}

func eachOf(t *testing.T, all map[string]func(t testing.TB) *testBroker, test func(t *testing.T, o *testBroker)) {
	t.Helper()
	for name, start := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

func closeAfterTest(t testing.TB, s export.Sink, err error) export.Sink {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the sink: %v", err)
		}
	})
	return s
}

func newRedisBroker(t testing.TB) *testBroker {
	b := testenv.RedisBroker(t)
	return &testBroker{broker: b, url: b.URL,
		open: func(t testing.TB) export.Sink {
			s, err := export.NewRedisSink(b.URL, export.RedisSinkConfig{Source: source, Stream: "events"})
			return closeAfterTest(t, s, err)
		},
		remove: func(t testing.TB) {
			if err := redisClient(t, b.URL).Del(t.Context(), "events").Err(); err != nil {
				t.Fatal(err)
			}
		},
		read: func(t testing.TB) (all []received) {
			client := redisClient(t, b.URL)
			entries, err := client.XRange(t.Context(), "events", "-", "+").Result()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				r := received{}
				for name, v := range e.Values {
					r[name], _ = v.(string)
				}
				all = append(all, r)
			}
			return all
		},
	}
}

func redisClient(t testing.TB, url string) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(opts)
	t.Cleanup(func() { client.Close() })
	return client
}

func newNATSBroker(t testing.TB) *testBroker {
	b := testenv.NATS(t)
	return &testBroker{broker: b, url: b.URL,
		open: func(t testing.TB) export.Sink {
			s, err := export.NewNATSSink(b.URL, export.NATSSinkConfig{Source: source, Stream: "EVENTS", Subject: "shop.events"})
			return closeAfterTest(t, s, err)
		},
		remove: func(t testing.TB) {
			if err := jetStream(t, b.URL).DeleteStream(t.Context(), "EVENTS"); err != nil {
				t.Fatal(err)
			}
		},
		read: func(t testing.TB) (all []received) {
			stream, err := jetStream(t, b.URL).Stream(t.Context(), "EVENTS")
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
				all = append(all, decodeStructured(t, m))
			}
			return all
		},
	}
}

// decodeStructured reads a structured CloudEvent.
func decodeStructured(t testing.TB, m jetstream.Msg) received {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(m.Data(), &fields); err != nil {
		t.Fatal(err)
	}
	r := received{}
	for name, raw := range fields {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw) // a number or the data
		}
		r[name] = text
	}
	if m.Subject() != "shop.events."+r["type"] || m.Headers().Get("content-type") != "application/cloudevents+json" {
		t.Errorf("the event %s has the subject %s and the headers %v", r["id"], m.Subject(), m.Headers())
	}
	return r
}

func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(url)
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

// makeEvents returns events from one position to another, of ten subjects in turn.
func makeEvents(timeline string, from, to event.Position) (events []*event.Event) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 678900000, time.UTC)
	for p := from; p <= to; p++ {
		events = append(events, &event.Event{
			ID: uid.NewEvent(at), Type: order.EventOrderPlaced, OccurredAt: at, Actor: "usr_1", SubjectID: fmt.Sprint("ord_", p%10), SubjectVersion: int(p),
			Data: json.RawMessage(`{"note":"<3 é"}`), Cursor: event.Cursor{Timeline: timeline, Position: p},
		})
	}
	return events
}

// sendAll sends all events and fails the test if not all are confirmed.
func sendAll(t testing.TB, s export.Sink, events []*event.Event) {
	t.Helper()
	if n, err := s.Send(t.Context(), events); n != len(events) || err != nil {
		t.Fatalf("Send of %d events = %d, %v", len(events), n, err)
	}
}

// receivedCursors returns the cursors of what was received.
func receivedCursors(all []received) (cursors []string) {
	for _, r := range all {
		cursors = append(cursors, r["cursor"])
	}
	return cursors
}

func cursorsOf(events []*event.Event) (cursors []string) {
	for _, e := range events {
		cursors = append(cursors, e.Cursor.String())
	}
	return cursors
}

func TestSink_gives_consumers_the_attributes_of_CloudEvents(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, o *testBroker) {
		events := makeEvents("t1", 6, 7)
		events[1].Actor = "" // the system itself
		sendAll(t, o.open(t), events)
		want := []received{{
			"specversion": "1.0", "id": string(events[0].ID), "source": source, "type": "order.placed", "subject": "ord_6",
			"time": "2030-01-02T03:04:05.6789Z", "datacontenttype": "application/json",
			"cursor": "t1.6", "timeline": "t1", "position": "6", "subjectversion": "6", "actor": "usr_1", "data": `{"note":"<3 é"}`,
		}, {
			"specversion": "1.0", "id": string(events[1].ID), "source": source, "type": "order.placed", "subject": "ord_7",
			"time": "2030-01-02T03:04:05.6789Z", "datacontenttype": "application/json",
			"cursor": "t1.7", "timeline": "t1", "position": "7", "subjectversion": "7", "data": `{"note":"<3 é"}`,
		}}
		if diff := cmp.Diff(want, o.read(t)); diff != "" {
			t.Errorf("a consumer got (-want +got):\n%s", diff)
		}
	})
}

func TestSink_keeps_order_when_events_are_sent_again(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, o *testBroker) {
		events := makeEvents("t1", 1, 600)
		first, second := o.open(t), o.open(t)
		sendAll(t, first, events[:400])
		sendAll(t, second, events[200:600]) // another owner, who does not know how far the first came
		sendAll(t, first, events[300:400])  // which goes on after it was frozen
		want := cursorsOf(events)
		if o.repeats {
			want = slices.Concat(want[:400], want[200:], want[300:400])
		}
		if diff := cmp.Diff(want, receivedCursors(o.read(t))); diff != "" {
			t.Errorf("the broker holds (-want +got):\n%s", diff)
		}
	})
}

func TestSink_continues_with_a_restored_log(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, o *testBroker) {
		before, after := makeEvents("t1", 1, 30), makeEvents("t2", 11, 20)
		s := o.open(t)
		sendAll(t, s, before)
		sendAll(t, s, after)
		sendAll(t, o.open(t), makeEvents("t2", 21, 22))
		want := slices.Concat(cursorsOf(before), cursorsOf(after), []string{"t2.21", "t2.22"})
		if diff := cmp.Diff(want, receivedCursors(o.read(t))); diff != "" {
			t.Errorf("the broker holds (-want +got):\n%s", diff)
		}
	})
}

func TestSink_resumes_when_its_broker_recovers(t *testing.T) {
	t.Parallel()
	all := testBrokers()
	all["RabbitMQ"] = ownRabbitBroker
	eachOf(t, all, func(t *testing.T, o *testBroker) {
		events := makeEvents("t1", 1, 20)
		s := o.open(t)
		sendAll(t, s, events[:10])
		o.broker.Halt()
		if n, err := s.Send(t.Context(), events[10:]); n != 0 || err == nil {
			t.Errorf("Send to a broker that is down = %d, %v, want an error", n, err)
		}
		o.broker.Start()
		sendAll(t, s, events[10:])
		if diff := cmp.Diff(cursorsOf(events), receivedCursors(o.read(t))); diff != "" {
			t.Errorf("the broker holds (-want +got):\n%s", diff)
		}
	})
}

func TestSink_stops_when_its_context_ends(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, o *testBroker) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := o.open(t).Send(ctx, makeEvents("t1", 1, 10)); n == 10 && err == nil && o.repeats {
			return // a broker may have been faster than the end
		} else if n < 10 && err == nil {
			t.Errorf("Send under a context that has ended = %d, nil, want an error", n)
		}
	})
}

func withUser(t testing.TB, raw, user, password string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

func TestSink_names_the_fault_of_its_broker(t *testing.T) {
	t.Parallel()
	const secret = "not-the-password"
	refused := func(t *testing.T, s export.Sink, err error, want string) {
		t.Helper()
		s = closeAfterTest(t, s, err)
		n, err := s.Send(t.Context(), makeEvents("t1", 1, 2))
		if n != 0 || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("Send = %d, %v, want an error with %q and without the password", n, err, want)
		}
	}
	t.Run("Redis", func(t *testing.T) {
		t.Parallel()
		b := testenv.RedisBroker(t)
		client := redisClient(t, b.URL)
		if err := client.Set(t.Context(), "text", "1", 0).Err(); err != nil {
			t.Fatal(err)
		}
		if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: "theirs", Values: []any{"a", "b"}}).Err(); err != nil {
			t.Fatal(err)
		}
		for stream, want := range map[string]string{"text": "holds a string", "theirs": "entries of another writer"} {
			s, err := export.NewRedisSink(b.URL, export.RedisSinkConfig{Stream: stream})
			refused(t, s, err, want)
		}
		s, err := export.NewRedisSink(withUser(t, b.URL, "intruder", secret), export.RedisSinkConfig{Stream: "events"})
		refused(t, s, err, "WRONGPASS")
	})
	t.Run("RabbitMQ", func(t *testing.T) {
		t.Parallel()
		address := testenv.SharedRabbitMQ(t)
		if err := rabbitChannel(t, address).ExchangeDeclare("fans", amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		s, err := export.NewRabbitMQSink(address, export.RabbitMQSinkConfig{Exchange: "fans"}, slog.New(slog.DiscardHandler))
		refused(t, s, err, "make the RabbitMQ exchange fans")
		s, err = export.NewRabbitMQSink(withUser(t, address, "guest", secret), export.RabbitMQSinkConfig{Exchange: "events"}, slog.New(slog.DiscardHandler))
		refused(t, s, err, "username or password not allowed")
		s, err = export.NewRabbitMQSink(address, export.RabbitMQSinkConfig{Exchange: "unbound", Mandatory: true}, slog.New(slog.DiscardHandler))
		refused(t, s, err, "no queue is bound")
	})
	t.Run("NATS", func(t *testing.T) {
		t.Parallel()
		b := testenv.NATS(t)
		if _, err := jetStream(t, b.URL).CreateStream(t.Context(), jetstream.StreamConfig{Name: "THEIRS", Subjects: []string{"theirs.*"}}); err != nil {
			t.Fatal(err)
		}
		s, err := export.NewNATSSink(b.URL, export.NATSSinkConfig{Stream: "THEIRS", Subject: "ours"})
		refused(t, s, err, "takes the subjects")
		s, err = export.NewNATSSink(b.URL, export.NATSSinkConfig{Stream: "OURS", Subject: "theirs"})
		refused(t, s, err, "find or make the NATS stream OURS")
	})
}

func TestSink_does_not_make_its_target_anew(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, o *testBroker) {
		events := makeEvents("t1", 1, 20)
		s, next := o.open(t), o.open(t)
		sendAll(t, s, events[:10])
		next.(export.Resumer).ResumeExport(10)
		o.remove(t)
		for name, sink := range map[string]export.Sink{"the sink that exported": s, "one that goes on": next} {
			for range 3 {
				n, err := sink.Send(t.Context(), events[10:])
				if n != 0 || err == nil {
					t.Errorf("%s sent %d events to a target that is gone, %v", name, n, err)
				}
				if errors.Is(err, export.ErrTargetGone) {
					break
				}
			}
			if _, err := sink.Send(t.Context(), events[10:]); !errors.Is(err, export.ErrTargetGone) {
				t.Errorf("%s reports %v, want ErrTargetGone", name, err)
			}
		}
		sendAll(t, o.open(t), events[:10]) // a sink that exports for the first time makes it
		sendAll(t, s, events[10:])         // and then the others go on
	})
}

// readableBrokers are those whose events a sink can read. An exchange of RabbitMQ keeps none.
func readableBrokers() map[string]func(testing.TB) *testBroker {
	all := testBrokers()
	delete(all, "RabbitMQ")
	return all
}

func TestSink_notices_that_the_end_of_its_stream_is_lost(t *testing.T) {
	t.Parallel()
	eachOf(t, readableBrokers(), func(t *testing.T, o *testBroker) {
		sendAll(t, o.open(t), makeEvents("t1", 1, 10))
		for _, last := range []event.Position{12, 10} {
			s, lost := o.open(t), last > 10
			s.(export.Resumer).ResumeExport(last)
			if _, err := s.Send(t.Context(), makeEvents("t1", 13, 14)); errors.Is(err, export.ErrTargetGone) != lost {
				t.Errorf("Send to a stream that ends at 10 when %d were exported = %v, want ErrTargetGone %v", last, err, lost)
			}
		}
	})
}

func TestSink_notices_a_database_that_was_restored(t *testing.T) {
	t.Parallel()
	eachOf(t, readableBrokers(), func(t *testing.T, o *testBroker) {
		all := makeEvents("t1", 1, 10)
		sendAll(t, o.open(t), all)
		repeating := o.open(t)
		sendAll(t, repeating, all[4:]) // which the broker may have twice then, and which are the same
		before := len(o.read(t))
		for name, events := range map[string][]*event.Event{
			"only others": makeEvents("t1", 8, 12), "the same first": append(slices.Clone(all[5:7]), makeEvents("t1", 8, 9)...),
		} {
			n, err := o.open(t).Send(t.Context(), events)
			if n != 0 || err == nil || !strings.Contains(err.Error(), "migrate --after-restore") || len(o.read(t)) != before {
				t.Errorf("%s: Send of events that the stream has others for = %d, %v, with %d entries after %d; want a refusal that says what to do", name, n, err, len(o.read(t)), before)
			}
		}
		sendAll(t, o.open(t), makeEvents("t2", 8, 12)) // of a new timeline
	})
}
