package export_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/event"
)

// bare sends the bytes that the sink sends with nothing but the broker's client,
// in batches of the same size, and waits for each batch to be confirmed.
var bare = map[string]func(b *testing.B, o *testBroker) func(events []*event.Event){
	"Redis": func(b *testing.B, o *testBroker) func([]*event.Event) {
		client := redisClient(b, o.url)
		values := []any{
			"specversion", "1.0", "id", "evt_01kdydw5hrfy8vx5f5gtkrp0aa", "source", source, "type", "order.placed", "subject", "ord_1",
			"time", "2030-01-02T03:04:05.6789Z", "datacontenttype", "application/json", "cursor", "t1.1000", "timeline", "t1", "position", "1000",
			"subjectversion", "1000", "actor", "usr_1", "data", `{"note":"<3 é"}`,
		}
		return func(events []*event.Event) {
			if _, err := client.Pipelined(b.Context(), func(p redis.Pipeliner) error {
				for range events {
					p.XAdd(b.Context(), &redis.XAddArgs{Stream: "bare", Values: values})
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
	},
	"RabbitMQ": func(b *testing.B, o *testBroker) func([]*event.Event) {
		ch := rabbitChannel(b, o.url)
		if err := ch.Confirm(false); err != nil {
			b.Fatal(err)
		}
		msg := amqp.Publishing{
			ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: "evt_01kdydw5hrfy8vx5f5gtkrp0aa", Type: "order.placed",
			Timestamp: time.Now(), AppId: "backplane", Body: []byte(`{"note":"<3 é"}`), Headers: amqp.Table{
				"cloudEvents_specversion": "1.0", "cloudEvents_id": "evt_01kdydw5hrfy8vx5f5gtkrp0aa", "cloudEvents_source": source,
				"cloudEvents_type": "order.placed", "cloudEvents_subject": "ord_1", "cloudEvents_time": "2030-01-02T03:04:05.6789Z",
				"cloudEvents_cursor": "t1.1000", "cloudEvents_timeline": "t1", "cloudEvents_position": "1000", "cloudEvents_subjectversion": "1000", "cloudEvents_actor": "usr_1",
			},
		}
		return func(events []*event.Event) {
			var sent []*amqp.DeferredConfirmation
			for range events {
				c, err := ch.PublishWithDeferredConfirm(o.topic, "order.placed", false, false, msg)
				if err != nil {
					b.Fatal(err)
				}
				sent = append(sent, c)
			}
			for _, c := range sent {
				c.Wait()
			}
		}
	},
	"NATS": func(b *testing.B, o *testBroker) func([]*event.Event) {
		js := jetStream(b, o.url)
		if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "BARE", Subjects: []string{"bare"}}); err != nil {
			b.Fatal(err)
		}
		body := []byte(`{"specversion":"1.0","id":"evt_01kdydw5hrfy8vx5f5gtkrp0aa","source":"https://shop.example/backplane","type":"order.placed","subject":"ord_1",` +
			`"time":"2030-01-02T03:04:05.6789Z","datacontenttype":"application/json","cursor":"t1.1000","timeline":"t1","position":"1000","subjectversion":1000,"actor":"usr_1","data":{"note":"<3 é"}}`)
		return func(events []*event.Event) {
			for range events {
				if _, err := js.PublishAsync("bare", body); err != nil {
					b.Fatal(err)
				}
			}
			<-js.PublishAsyncComplete()
		}
	},
}

// BenchmarkSink is how many events a broker takes from a sink, in batches of
// 500, and from its bare client for the same bytes. Subjects are all different:
// a sink of RabbitMQ waits between two events of one.
func BenchmarkSink(b *testing.B) {
	const batch = 500
	for name, start := range testBrokers() {
		b.Run(name, func(b *testing.B) {
			o := start(b)
			s, send := o.open(b), bare[name](b, o)
			next := event.Position(1)
			var ours, theirs time.Duration
			for b.Loop() {
				events := makeEvents("t1", next, next+batch-1)
				for _, e := range events {
					e.SubjectID = string(e.ID)
				}
				next += batch
				begun := time.Now()
				sendAll(b, s, events)
				ours += time.Since(begun)
				begun = time.Now()
				send(events)
				theirs += time.Since(begun)
			}
			b.ReportMetric(float64(next-1)/ours.Seconds(), "events/s")
			b.ReportMetric(float64(next-1)/theirs.Seconds(), "bare/s")
			b.ReportMetric(theirs.Seconds()/ours.Seconds(), "ratio")
		})
	}
}
