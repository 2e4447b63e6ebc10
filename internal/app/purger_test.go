package app

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestPurger_drops_and_logs_dead_letters_soon_after_the_start: a node that restarts more often than each ten minutes
// drops them too, and says which events were never handled.
func TestPurger_drops_and_logs_dead_letters_soon_after_the_start(t *testing.T) {
	t.Parallel()
	url := testenv.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		db := testenv.Open(t, store.Config{URL: url, Now: time.Now})
		var env Env
		var logged bytes.Buffer
		env.Log, env.Config = slog.New(slog.NewTextHandler(&logged, nil)), config.Config{DeadLetters: consumer.DeadLetterConfig{Retention: time.Hour}}
		parked := parkEvent(t, db)
		time.Sleep(time.Hour)
		p := NewPurger(env, db)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(firstPurge + time.Second)
		left, err := db.DeadLetters().Count(ctx, consumer.DeadLetterFilter{})
		if err != nil || left != 0 || p.dropped.Load() != 1 {
			t.Errorf("a minute after the start there are %d dead letters, %v, and %d were counted as dropped", left, err, p.dropped.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := strings.Count(logged.String(), "a dead letter was dropped without a replay"); n != 1 {
			t.Errorf("the log says %d times that a dead letter was dropped:\n%s", n, &logged)
		}
		for _, want := range []string{"consumer=mail", "event=" + string(parked.ID), "subject=" + parked.SubjectID, "code=INTERNAL", "level=WARN"} {
			if !strings.Contains(logged.String(), want) {
				t.Errorf("the log misses %s:\n%s", want, &logged)
			}
		}
	})
}

// parkEvent makes the event of a new product a dead letter of the consumer mail.
func parkEvent(t *testing.T, db *store.DB) *event.Event {
	t.Helper()
	p, s, err := order.NewProduct(order.ProductInput{SKU: "cup", Name: "Cup", Price: money.Money{Minor: 250, Currency: "EUR"}, Active: true}, db.Clock().Now())
	if err == nil {
		_, err = db.Products().Create(t.Context(), claim.None, p, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	held, ok, err := db.Leases().Acquire(t.Context(), "mail", "me", 0, time.Minute)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	events, err := db.Events().Read(t.Context(), event.Filter{}, eventlog.Span{Limit: 1})
	if err != nil || len(events) != 1 {
		t.Fatal(len(events), err)
	}
	if err := db.DeadLetters().Park(t.Context(), held, events[0], consumer.Failure{Attempts: 10, Code: "INTERNAL"}); err != nil {
		t.Fatal(err)
	}
	if found, err := db.DeadLetters().List(t.Context(), consumer.DeadLetterFilter{}, page.Args{}); err != nil || len(found.Items) != 1 {
		t.Fatal(len(found.Items), err)
	}
	return events[0]
}
