package export_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backplane-dev/backplane/internal/export"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func sharedRabbitBroker(t testing.TB) *testBroker {
	return newRabbitBroker(t, testenv.SharedRabbitMQ(t))
}

func ownRabbitBroker(t testing.TB) *testBroker {
	b := testenv.RabbitMQ(t)
	o := newRabbitBroker(t, b.URL)
	b.FlushDefinitions()
	o.broker = b
	return o
}

func newRabbitBroker(t testing.TB, address string) *testBroker {
	topic := rand.Text() // others use the broker too
	ch := rabbitChannel(t, address)
	if err := ch.ExchangeDeclare(topic, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(topic, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(topic, "#", topic, false, nil); err != nil {
		t.Fatal(err)
	}
	var all []received
	return &testBroker{url: address, topic: topic, repeats: true,
		open: func(t testing.TB) export.Sink {
			s, err := export.NewRabbitMQSink(address, export.RabbitMQSinkConfig{Source: source, Exchange: topic}, slog.New(slog.DiscardHandler))
			return closeAfterTest(t, s, err)
		},
		remove: func(t testing.TB) {
			if err := rabbitChannel(t, address).ExchangeDelete(topic, false, false); err != nil {
				t.Fatal(err)
			}
		},
		read: func(t testing.TB) []received {
			ch := rabbitChannel(t, address)
			for {
				m, ok, err := ch.Get(topic, true)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					return all
				}
				r := received{"data": string(m.Body), "datacontenttype": m.ContentType}
				for name, v := range m.Headers {
					r[strings.TrimPrefix(name, "cloudEvents_")], _ = v.(string)
				}
				if m.RoutingKey != r["type"] || m.MessageId != r["id"] || m.DeliveryMode != amqp.Persistent {
					t.Errorf("the message %s has the key %s, the id %s and the mode %d", r["id"], m.RoutingKey, m.MessageId, m.DeliveryMode)
				}
				all = append(all, r)
			}
		},
	}
}

func rabbitChannel(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func TestRabbitMQSink_keeps_the_order_of_a_subject_when_single_events_are_refused(t *testing.T) {
	t.Parallel()
	o := sharedRabbitBroker(t)
	ch := rabbitChannel(t, o.url)
	// A queue that is full refuses, and takes more once it was read.
	if _, err := ch.QueueDeclare("small", true, false, false, false, amqp.Table{"x-max-length": 5, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind("small", "#", o.topic, false, nil); err != nil {
		t.Fatal(err)
	}
	s, events := o.open(t), makeEvents("t1", 1, 60)
	versions := map[string][]string{}
	for len(events) > 0 {
		n, err := s.Send(t.Context(), events)
		if err != nil && !strings.Contains(err.Error(), "refused an event") {
			t.Fatal(err)
		}
		events = events[n:]
		for {
			m, ok, err := ch.Get("small", true)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			subject, _ := m.Headers["cloudEvents_subject"].(string)
			if at, _ := m.Headers["cloudEvents_position"].(string); !slices.Contains(versions[subject], at) {
				versions[subject] = append(versions[subject], at)
			}
		}
	}
	for subject, got := range versions {
		digit := strings.TrimPrefix(subject, "ord_")
		want := []string{digit, "1" + digit, "2" + digit, "3" + digit, "4" + digit, "5" + digit}
		if digit == "0" {
			want = []string{"10", "20", "30", "40", "50", "60"}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the queue got the events %v of %s first, want %v", got, subject, want)
		}
	}
	if len(versions) != 10 {
		t.Errorf("the queue got events of %d subjects, want 10", len(versions))
	}
}

func TestRabbitMQSink_waits_while_RabbitMQ_blocks_the_connection(t *testing.T) {
	t.Parallel()
	o := ownRabbitBroker(t)
	log := &blockedLog{blocked: make(chan struct{}, 1)}
	s, err := export.NewRabbitMQSink(o.url, export.RabbitMQSinkConfig{Source: source, Exchange: o.topic}, slog.New(slog.NewTextHandler(log, nil)))
	sink := closeAfterTest(t, s, err)
	events := makeEvents("t1", 1, 40)
	sendAll(t, sink, events[:10])
	o.broker.Control("set_vm_memory_high_watermark", "absolute", "1MB") // of which it needs more
	sent := make(chan error, 1)
	go func() { // RabbitMQ tells of it when it is next sent something
		n, err := sink.Send(t.Context(), events[10:])
		if err == nil && n != 30 {
			err = fmt.Errorf("%d events were sent, want 30", n)
		}
		sent <- err
	}()
	select {
	case <-log.blocked:
	case err := <-sent:
		t.Fatalf("Send while RabbitMQ blocks the connection = %v, and no log line", err)
	}
	o.broker.Control("set_vm_memory_high_watermark", "absolute", "512MB")
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(cursorsOf(events), receivedCursors(o.read(t))); diff != "" {
		t.Errorf("the broker holds (-want +got):\n%s", diff)
	}
}

// blockedLog receives the log of a sink, and signals when RabbitMQ blocks the connection.
type blockedLog struct{ blocked chan struct{} }

// Write implements io.Writer.
func (s *blockedLog) Write(text []byte) (int, error) {
	if bytes.Contains(text, []byte("RabbitMQ blocks the connection")) {
		s.blocked <- struct{}{}
	}
	return len(text), nil
}

func TestRabbitMQSink_needs_no_right_to_make_an_exchange_that_is_there(t *testing.T) {
	t.Parallel()
	o := ownRabbitBroker(t)
	o.broker.Control("add_user", "limited", "secret")
	o.broker.Control("set_permissions", "limited", "^$", ".*", ".*") // to make nothing, and to write and read all
	u, err := url.Parse(o.url)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("limited", "secret")
	open := func(exchange string) export.Sink {
		s, err := export.NewRabbitMQSink(u.String(), export.RabbitMQSinkConfig{Source: source, Exchange: exchange}, slog.New(slog.DiscardHandler))
		return closeAfterTest(t, s, err)
	}
	events := makeEvents("t1", 1, 10)
	sendAll(t, open(o.topic), events)
	if diff := cmp.Diff(cursorsOf(events), receivedCursors(o.read(t))); diff != "" {
		t.Errorf("the broker holds (-want +got):\n%s", diff)
	}
	if n, err := open("missing").Send(t.Context(), events); n != 0 || err == nil || !strings.Contains(err.Error(), "make the RabbitMQ exchange missing") {
		t.Errorf("Send to an exchange that the user may not make = %d, %v, want an error that names it", n, err)
	}
}
