package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backplane-dev/backplane/internal/event"
)

// RabbitMQSinkConfig says where in RabbitMQ events go.
type RabbitMQSinkConfig struct {
	Source    string // of the events
	Exchange  string // a durable topic exchange, made if there is none
	Mandatory bool   // unroutable messages fail; else RabbitMQ drops them
}

// RabbitMQSink publishes events to a topic exchange, with the type as routing
// key, persistent, in the binary mode of CloudEvents.
//
// RabbitMQ may refuse one message and take the next. So an event is published
// only when the one before it of the same subject is confirmed; others do not
// wait for one another.
type RabbitMQSink struct {
	url string
	cfg RabbitMQSinkConfig
	log *slog.Logger

	link     *rabbitConnection // nil while there is none
	exported bool              // to the exchange, which therefore must be there
}

var _ Sink = (*RabbitMQSink)(nil)

// ResumeExport implements export.Resumer.
func (s *RabbitMQSink) ResumeExport(event.Position) { s.exported = true }

// rabbitConnection is a connection to RabbitMQ and its one channel.
type rabbitConnection struct {
	socket   net.Conn
	conn     *amqp.Connection
	channel  *amqp.Channel
	closed   chan *amqp.Error
	returned chan amqp.Return // unroutable messages, each before its confirmation
	blocked  atomic.Bool      // RabbitMQ has blocked the connection
}

// rabbitInFlight is how many messages may be unconfirmed. All of them may be
// returned at once, and the client library must not block on the channel.
const rabbitInFlight = 1000

// NewRabbitMQSink returns a sink that connects when it is used.
func NewRabbitMQSink(url string, cfg RabbitMQSinkConfig, log *slog.Logger) (*RabbitMQSink, error) {
	if _, err := amqp.ParseURI(url); err != nil {
		return nil, errURL("amqp://user:password@host:5672/vhost")
	}
	return &RabbitMQSink{url: url, cfg: cfg, log: log}, nil
}

// Close implements export.Sink.
func (s *RabbitMQSink) Close() error {
	if s.link == nil {
		return nil
	}
	l := s.link
	s.link = nil
	return l.closeConnection()
}

// closeConnection closes the connection; a peer that does not answer is not waited for.
func (l *rabbitConnection) closeConnection() error {
	if !l.blocked.Load() {
		_ = l.conn.CloseDeadline(time.Now().Add(closeTimeout)) // closing handshake
	}
	if err := l.socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Send implements export.Sink.
func (s *RabbitMQSink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if err := s.connect(ctx); err != nil {
		return 0, errors.Join(err, s.Close())
	}
	n, err := s.publishEvents(ctx, events)
	s.exported = s.exported || n > 0
	if err != nil {
		return n, errors.Join(fmt.Errorf("publish to the RabbitMQ exchange %s: %w", s.cfg.Exchange, err), s.Close())
	}
	return n, nil
}

func (s *RabbitMQSink) connect(ctx context.Context) error {
	if s.link != nil && !s.link.conn.IsClosed() {
		return nil
	}
	l := &rabbitConnection{closed: make(chan *amqp.Error, 1), returned: make(chan amqp.Return, rabbitInFlight)}
	conn, err := amqp.DialConfig(s.url, amqp.Config{
		Heartbeat: idleTimeout / 3, Properties: amqp.Table{"connection_name": "backplane sink"},
		Dial: func(network, addr string) (net.Conn, error) {
			var err error
			if l.socket, err = (&net.Dialer{Timeout: connectTimeout}).DialContext(ctx, network, addr); err != nil {
				return nil, err
			}
			return l.socket, l.socket.SetDeadline(time.Now().Add(connectTimeout)) // for the handshake; the library clears it
		},
	})
	if err != nil {
		return fmt.Errorf("connect to RabbitMQ: %w", err)
	}
	l.conn, s.link = conn, l
	return s.ensureExchange(ctx, l)
}

// ensureExchange declares the exchange, or checks the existing one, and opens the channel.
func (s *RabbitMQSink) ensureExchange(ctx context.Context, l *rabbitConnection) (err error) {
	stop := context.AfterFunc(ctx, func() { _ = l.socket.Close() })
	defer stop()
	go s.watchBlocked(l.conn.NotifyBlocked(make(chan amqp.Blocking, 1)), l)
	if err := s.declareExchange(l.conn); err != nil {
		return err
	}
	if l.channel, err = l.conn.Channel(); err != nil {
		return fmt.Errorf("open a channel of RabbitMQ: %w", err)
	}
	l.channel.NotifyClose(l.closed)
	l.channel.NotifyReturn(l.returned)
	if err := l.channel.Confirm(false); err != nil {
		return fmt.Errorf("ask RabbitMQ for confirmations: %w", err)
	}
	return nil
}

// declareExchange makes the exchange for the first export, and later finds it. A user without the right
// to make exchanges is good enough if it is there. RabbitMQ closes a channel after a refusal.
func (s *RabbitMQSink) declareExchange(conn *amqp.Connection) error {
	declare := func(exchange func(ch *amqp.Channel) error) error {
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		return errors.Join(exchange(ch), ignoreClosedChannel(ch.Close()))
	}
	find := func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(s.cfg.Exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	}
	if s.exported {
		if err := declare(find); err != nil {
			if hasRabbitCode(err, amqp.NotFound) {
				err = errors.Join(ErrTargetGone, err)
			}
			return fmt.Errorf("find the RabbitMQ exchange %s: %w", s.cfg.Exchange, err)
		}
	}
	err := declare(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(s.cfg.Exchange, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	if hasRabbitCode(err, amqp.AccessRefused) && declare(find) == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make the RabbitMQ exchange %s, durable and of type topic: %w", s.cfg.Exchange, err)
	}
	return nil
}

func hasRabbitCode(err error, code int) bool {
	refused, ok := errors.AsType[*amqp.Error](err)
	return ok && refused.Code == code
}

func ignoreClosedChannel(err error) error {
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}

// watchBlocked logs when RabbitMQ blocks the connection, low on memory or disk, and
// when it unblocks it. It ends with the connection.
func (s *RabbitMQSink) watchBlocked(changes <-chan amqp.Blocking, l *rabbitConnection) {
	for b := range changes {
		l.blocked.Store(b.Active)
		if b.Active {
			s.log.Warn("RabbitMQ blocks the connection; the sink waits; free memory or disk of the broker", "reason", b.Reason)
		} else {
			s.log.Info("RabbitMQ unblocked the connection")
		}
	}
}

// publishEvents sends all and waits until they are confirmed.
func (s *RabbitMQSink) publishEvents(ctx context.Context, events []*event.Event) (int, error) {
	l := s.link
	stop := context.AfterFunc(ctx, func() { _ = l.socket.Close() }) // a write does not end by itself
	defer stop()
	w := &rabbitWindow{link: l, last: make(map[string]int)}
	for i, e := range events {
		before := i + 1 - rabbitInFlight
		if last, ok := w.last[e.SubjectID]; ok {
			before = max(before, last+1)
		}
		if err := w.awaitConfirmed(ctx, before); err != nil {
			return w.confirmed, err
		}
		c, err := l.channel.PublishWithDeferredConfirm(s.cfg.Exchange, string(e.Type), s.cfg.Mandatory, false, s.encodeMessage(e))
		if err != nil {
			return w.confirmed, err
		}
		w.last[e.SubjectID] = i
		w.sent = append(w.sent, c)
	}
	return w.confirmed, w.awaitConfirmed(ctx, len(w.sent))
}

// rabbitWindow is what was sent together, and how much of it is confirmed.
type rabbitWindow struct {
	link      *rabbitConnection
	sent      []*amqp.DeferredConfirmation
	last      map[string]int // index of the last one of a subject
	confirmed int            // so many from the first
}

var errNacked = errors.New("RabbitMQ refused an event; a queue may be full")

// awaitConfirmed waits until the first n are confirmed.
func (w *rabbitWindow) awaitConfirmed(ctx context.Context, n int) error {
	for ; w.confirmed < n; w.confirmed++ {
		c := w.sent[w.confirmed]
		if err := w.link.awaitConfirmation(ctx, c.Done()); err != nil {
			return err
		}
		if !c.Acked() {
			return cmp.Or(w.link.closeReason(), errNacked)
		}
		select {
		case r := <-w.link.returned:
			return fmt.Errorf("no queue is bound that takes events of the type %s", r.RoutingKey)
		default:
		}
	}
	return nil
}

// awaitConfirmation waits for one confirmation: without limit while RabbitMQ blocks the
// connection, else up to confirmTimeout.
func (l *rabbitConnection) awaitConfirmation(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	default:
	}
	quiet := time.NewTicker(confirmTimeout)
	defer quiet.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case err := <-l.closed:
			return closeError(err)
		case <-quiet.C:
			if !l.blocked.Load() {
				return errConfirmTimeout
			}
		}
	}
}

// closeReason returns why the channel has ended, or nil.
func (l *rabbitConnection) closeReason() error {
	select {
	case err := <-l.closed:
		return closeError(err)
	default:
		return nil
	}
}

func closeError(err *amqp.Error) error {
	if err == nil {
		return amqp.ErrClosed
	}
	return err
}

// rabbitPrefix is what the AMQP binding of CloudEvents puts in front of names.
const rabbitPrefix = "cloudEvents_"

func (s *RabbitMQSink) encodeMessage(e *event.Event) amqp.Publishing {
	c := newCloudEvent(e, s.cfg.Source)
	headers := amqp.Table{}
	for _, a := range c.attributes() {
		if a.name != "datacontenttype" { // that is the content type
			headers[rabbitPrefix+a.name] = a.value
		}
	}
	return amqp.Publishing{
		Headers: headers, ContentType: c.DataContentType, DeliveryMode: amqp.Persistent,
		MessageId: c.ID, Type: c.Type, Timestamp: e.OccurredAt, AppId: cloudEventsApp, Body: c.Data,
	}
}
