package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fairshare"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

// blocker blocks statements that contain a text, once it is armed.
type blocker struct {
	text    string
	entered chan struct{} // receives for each statement that is blocked
	release chan struct{}
	armed   bool
}

func (b *blocker) onStatement(query string) {
	if b.armed && strings.Contains(query, b.text) {
		b.entered <- struct{}{}
		<-b.release
	}
}

func TestCaller_holds_a_share_of_the_connections(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		statement string // a part of it, which no statement of the other caller has
		call      func(ctx context.Context, db *store.DB, user uid.User) error
		want      map[string]int // of 8 connections, by dialect
	}{
		"reads by ent": {"products", func(ctx context.Context, db *store.DB, _ uid.User) error {
			_, err := db.Products().ByIDs(ctx, []uid.Product{"prd_1"})
			return err
		}, map[string]int{"postgres": 2, "sqlite3": 2}},
		"reads by SQL": {"events", func(ctx context.Context, db *store.DB, _ uid.User) error {
			_, err := db.Events().Read(ctx, event.Filter{}, eventlog.Span{Limit: 1})
			return err
		}, map[string]int{"postgres": 2, "sqlite3": 2}},
		"transactions": {"BEGIN", func(ctx context.Context, db *store.DB, user uid.User) error {
			_, err := db.Users().Update(ctx, claim.None, user, renameUser)
			return err
		}, map[string]int{"postgres": 2, "sqlite3": 1}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testenv.EachURL(t, func(t *testing.T, url string) {
				const calls = 8
				b := &blocker{text: tt.statement, entered: make(chan struct{}, calls), release: make(chan struct{})}
				db := testenv.Open(t, store.Config{URL: url, MaxConns: calls, OnStatement: b.onStatement})
				mallory, other := givenUser(t, db).ID, givenUser(t, db).ID
				b.armed = true
				var wg sync.WaitGroup
				for range calls {
					wg.Go(func() {
						if err := tt.call(auth.With(t.Context(), &auth.Principal{UserID: mallory}), db, mallory); err != nil {
							t.Error(err)
						}
					})
				}
				want := tt.want[db.Dialect()]
				for range want {
					<-b.entered
				}
				for _, ctx := range []context.Context{
					auth.With(t.Context(), &auth.Principal{UserID: other}), auth.WithClient(t.Context(), auth.Client{Address: "192.0.2.1"}), t.Context(),
				} {
					if _, err := db.Users().ByIDs(ctx, []uid.User{other}); err != nil {
						t.Errorf("another caller's read = %v", err)
					}
				}
				if more := len(b.entered); more != 0 {
					t.Errorf("one caller has %d connections, want %d", want+more, want)
				}
				close(b.release)
				wg.Wait()
				if n := db.CallersWithConnections(); n != 0 {
					t.Errorf("%d callers hold connections after all calls, want none", n)
				}
			})
		})
	}
}

func TestCaller_that_waits_for_a_connection_ends_with_its_context(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		b := &blocker{text: "products", entered: make(chan struct{}, 1), release: make(chan struct{})}
		db := testenv.Open(t, store.Config{URL: url, MaxConns: 4, OnStatement: b.onStatement})
		b.armed = true
		ctx, cancel := context.WithCancel(auth.With(t.Context(), &auth.Principal{UserID: "usr_1"}))
		read := func(ctx context.Context) error {
			_, err := db.Products().ByIDs(ctx, []uid.Product{"prd_1"})
			return err
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := read(context.WithoutCancel(ctx)); err != nil {
				t.Error(err)
			}
		})
		<-b.entered
		cancel()
		if err := read(ctx); fault.From(err).Kind() != fault.KindTimeout {
			t.Errorf("a call whose client is gone = %v, want a Timeout", err)
		}
		close(b.release)
		wg.Wait()
		if n := db.CallersWithConnections(); n != 0 {
			t.Errorf("%d callers hold connections after all calls, want none", n)
		}
	})
}

// TestOperation_is_refused_while_the_queue_for_connections_is_congested stalls the database. Those who
// wait, and operations that have begun, are served once it is back.
func TestOperation_is_refused_while_the_queue_for_connections_is_congested(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		const queueLength = 32
		b := &blocker{text: "products", entered: make(chan struct{}, 1), release: make(chan struct{})}
		db := testenv.Open(t, store.Config{URL: url, MaxConns: 1, OnStatement: b.onStatement})
		b.armed = true
		read := func(ctx context.Context, caller int) error {
			_, err := db.Products().ByIDs(auth.With(ctx, &auth.Principal{UserID: uid.User(fmt.Sprint("usr_", caller))}), []uid.Product{"prd_1"})
			return err
		}
		var wg sync.WaitGroup
		for n := range queueLength {
			wg.Go(func() {
				if err := read(fairshare.WithAdmission(t.Context()), n); err != nil {
					t.Errorf("a read that has waited for the connection = %v", err)
				}
			})
		}
		<-b.entered
		begun := fairshare.WithAdmission(t.Context())
		fairshare.Admit(begun)
		wg.Go(func() {
			if err := read(begun, queueLength); err != nil {
				t.Errorf("a read of an operation that has begun = %v", err)
			}
		})
		testenv.Eventually(t, "a new operation is refused", func() bool {
			ctx, cancel := context.WithTimeout(fairshare.WithAdmission(t.Context()), 50*time.Millisecond)
			defer cancel()
			return fault.Is(read(ctx, queueLength+1), fault.ServerBusy)
		})
		close(b.release)
		for range queueLength {
			<-b.entered
		}
		wg.Wait()
		if err := read(fairshare.WithAdmission(t.Context()), 0); err != nil {
			t.Errorf("a read once the database is back = %v", err)
		}
	})
}

func TestSessions_are_read_while_all_other_connections_are_taken(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		const conns = 3
		b := &blocker{text: "products", entered: make(chan struct{}, conns), release: make(chan struct{})}
		db := testenv.Open(t, store.Config{URL: url, MaxConns: conns, OnStatement: b.onStatement})
		who := givenUser(t, db).ID
		b.armed = true
		var wg sync.WaitGroup
		for range conns {
			wg.Go(func() {
				if err := db.HoldConn(t.Context(), func() { b.onStatement("products") }); err != nil {
					t.Error(err)
				}
			})
		}
		for range conns {
			<-b.entered
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := db.Sessions().AccountByID(ctx, who); err != nil {
			t.Errorf("AccountByID = %v", err)
		}
		if _, err := db.Sessions().LiveSessions(ctx, who, at, 1); err != nil {
			t.Errorf("LiveSessions = %v", err)
		}
		if _, err := db.Sessions().KeysOf(ctx, who, 1); err != nil {
			t.Errorf("KeysOf = %v", err)
		}
		close(b.release)
		wg.Wait()
	})
}

func TestDB_LogReader_reads_while_all_connections_for_reads_are_taken(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		const conns = 4
		db := testenv.Open(t, store.Config{URL: url, MaxConns: conns})
		for range conns {
			conn, err := db.ReadConn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := db.LogReader().State(ctx); err != nil {
			t.Errorf("State = %v while all connections for reads are taken", err)
		}
	})
}
