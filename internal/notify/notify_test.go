package notify_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/testenv"
)

var (
	_ eventlog.Notifier = (*notify.Member)(nil)
	_ eventlog.Notifier = (*notify.Postgres)(nil)
	_ eventlog.Notifier = (*notify.Redis)(nil)
)

// transport is a way to make buses of the same nodes, and to break their connections.
type transport struct {
	open func() eventlog.Notifier
	cut  func(t *testing.T) // nil if there is nothing to cut
}

// transports returns each kind of notifier by name.
func transports() map[string]func(t *testing.T) transport {
	return map[string]func(t *testing.T) transport{
		"memory": func(*testing.T) transport {
			m := &notify.Memory{}
			return transport{open: func() eventlog.Notifier { return m.Join() }}
		},
		"postgres": func(t *testing.T) transport {
			url := testenv.Postgres(t)
			return transport{
				open: func() eventlog.Notifier {
					return notify.NewPostgres(connectTo(url), slog.New(slog.DiscardHandler))
				},
				cut: func(t *testing.T) { cutPostgres(t, url) },
			}
		},
		"redis": func(t *testing.T) transport {
			url := testenv.Redis(t)
			return transport{
				open: func() eventlog.Notifier {
					b, err := notify.NewRedis(url)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { b.Close() })
					return b
				},
				cut: func(t *testing.T) { cutRedis(t, url) },
			}
		},
	}
}

// connectTo returns what opens connections of a notifier.
func connectTo(url string) notify.Connect {
	return func(ctx context.Context, name string) (*pgx.Conn, error) {
		cfg, err := pgx.ParseConfig(url)
		if err != nil {
			return nil, err
		}
		cfg.RuntimeParams["application_name"] = name
		return pgx.ConnectConfig(ctx, cfg)
	}
}

func cutPostgres(t *testing.T, url string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'backplane bus'`); err != nil {
		t.Fatal(err)
	}
}

func cutRedis(t *testing.T, url string) {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(opts)
	defer client.Close()
	if err := client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
}

// listen runs the notifier and returns what it receives.
func listen(t *testing.T, b eventlog.Notifier) <-chan event.Notification {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	notifications, done := make(chan event.Notification, 1000), make(chan error, 1)
	go func() { done <- b.Listen(ctx, func(h event.Notification) { notifications <- h }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Listen = %v, want nil", err)
		}
	})
	return notifications
}

// awaitNotification receives until it gets the notification; others may use the same server.
func awaitNotification(t *testing.T, notifications <-chan event.Notification, want event.Notification) {
	t.Helper()
	for {
		select {
		case h := <-notifications:
			if h == want {
				return
			}
		case <-t.Context().Done():
			t.Fatalf("the notification %+v did not come", want)
		}
	}
}

func randomHead() event.Position { return event.Position(1 + rand.Int64N(1<<40)) }

func TestNotifier_sends_notifications_to_other_nodes(t *testing.T) {
	t.Parallel()
	for name, newKind := range transports() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKind(t)
			sender, a, b := k.open(), listen(t, k.open()), listen(t, k.open())
			if k.cut != nil { // they are listening once they say so
				awaitNotification(t, a, event.Notification{})
				awaitNotification(t, b, event.Notification{})
			}
			for _, h := range []event.Notification{{Head: randomHead()}, {Waiting: true}, {Head: randomHead(), Waiting: true}} {
				if err := sender.Notify(t.Context(), h); err != nil {
					t.Fatal(err)
				}
				awaitNotification(t, a, h)
				awaitNotification(t, b, h)
			}
		})
	}
}

// This test cuts every subscriber of the Redis that it shares with the others,
// so it runs before them.
func TestNotifier_reports_that_it_may_have_lost_notifications(t *testing.T) { //nolint:paralleltest,tparallel // see above
	for name, newKind := range transports() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKind(t)
			if k.cut == nil {
				t.Skip("nothing can be cut")
			}
			sender, receiver := k.open(), listen(t, k.open())
			awaitNotification(t, receiver, event.Notification{})
			if err := sender.Notify(t.Context(), event.Notification{Waiting: true}); err != nil {
				t.Fatal(err)
			}
			awaitNotification(t, receiver, event.Notification{Waiting: true})
			k.cut(t)
			awaitNotification(t, receiver, event.Notification{})
			h := event.Notification{Head: randomHead()}
			if err := sender.Notify(t.Context(), h); err != nil { // its own connection was cut, too
				if err := sender.Notify(t.Context(), h); err != nil {
					t.Fatalf("Notify failed twice: %v", err)
				}
			}
			awaitNotification(t, receiver, h)
		})
	}
}

func TestRedis_reconnects_when_the_peer_is_gone(t *testing.T) {
	t.Parallel()
	url := testenv.Redis(t)
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testenv.NewProxy(t, opts.Addr)
	far, err := notify.NewRedis(strings.Replace(url, opts.Addr, proxy.Addr, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	near, err := notify.NewRedis(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far.SetIdleTimeout(200 * time.Millisecond)
	notifications := listen(t, far)
	awaitNotification(t, notifications, event.Notification{})
	proxy.Lose()
	awaitNotification(t, notifications, event.Notification{}) // it has connected again
	h := event.Notification{Head: randomHead()}
	if err := near.Notify(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	awaitNotification(t, notifications, h)
}

func TestMemory_drops_notifications_of_a_slow_member(t *testing.T) {
	t.Parallel()
	m := &notify.Memory{}
	sender, deaf := m.Join(), m.Join()
	for range 1000 {
		if err := sender.Notify(t.Context(), event.Notification{Head: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-listen(t, deaf); got.Head != 1 {
		t.Errorf("the first notification is %+v, want the head 1", got)
	}
}

func TestNew_does_not_repeat_passwords(t *testing.T) {
	t.Parallel()
	if _, err := notify.NewRedis("http://u:hunter2@h"); err == nil || err.Error() != "this is not a Redis URL such as redis://user:password@host:6379/0" {
		t.Errorf("NewRedis = %v", err)
	}
}
