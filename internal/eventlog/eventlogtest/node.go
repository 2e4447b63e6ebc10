package eventlogtest

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// Node is a server as far as the log goes.
type Node struct {
	DB       *store.DB
	Pipeline *eventlog.Pipeline
	Freezer  *Freezer        // on PostgreSQL
	Ctx      context.Context // ends when the node does
	Kill     context.CancelFunc
	finished chan error
}

// StartNode runs a node on the database. Each has connections of its own.
func StartNode(t testing.TB, url string, b eventlog.Notifier, cfg eventlog.PipelineConfig) *Node {
	t.Helper()
	n := &Node{DB: testenv.Open(t, store.Config{URL: url, MaxConns: 8}), finished: make(chan error, 1)}
	var numbering eventlog.PositionStore
	seq, err := n.DB.Sequence()
	if err != nil {
		t.Fatal(err)
	}
	if seq != nil {
		n.Freezer = &Freezer{PositionStore: seq}
		numbering = n.Freezer
	}
	n.Pipeline, err = eventlog.NewPipeline(eventlog.NewLog(n.DB.Events()), numbering, b, DiscardLogger(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.DB = n.DB.WithHooks(store.Hooks{Appended: n.Pipeline.EventsAppended})
	n.Ctx, n.Kill = context.WithCancel(context.Background())
	go func() { n.finished <- n.Pipeline.Run(n.Ctx) }()
	t.Cleanup(func() {
		n.Kill()
		if err := <-n.finished; err != nil {
			t.Errorf("the feed ended with %v", err)
		}
		if seq != nil {
			if err := seq.Close(); err != nil {
				t.Errorf("close the sequence: %v", err)
			}
		}
	})
	return n
}

// Freezer holds up all calls while it is frozen, as a stopped process would.
type Freezer struct {
	eventlog.PositionStore

	mu     sync.Mutex
	frozen chan struct{} // closed when it thaws; nil while it is not frozen
}

// Freeze holds up calls from now on.
func (f *Freezer) Freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = make(chan struct{})
}

// Thaw lets them go on.
func (f *Freezer) Thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.frozen)
	f.frozen = nil
}

func (f *Freezer) wait() {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

// Acquire implements eventlog.PositionStore.
func (f *Freezer) Acquire(ctx context.Context, holder string, ttl time.Duration) (lease.Lease, bool, error) {
	f.wait()
	return f.PositionStore.Acquire(ctx, holder, ttl)
}

// AssignPositions implements eventlog.PositionStore.
func (f *Freezer) AssignPositions(ctx context.Context, l lease.Lease, ttl time.Duration, limit int) (int, lease.Lease, error) {
	f.wait()
	return f.PositionStore.AssignPositions(ctx, l, ttl, limit)
}

// Size returns how much of something there is in CI, and in a soak.
func Size(small, large int) int {
	if testenv.Soak() {
		return large
	}
	return small
}

// PostgresBehindProxy returns a new PostgreSQL database's URL and that of it behind a proxy.
func PostgresBehindProxy(t *testing.T) (direct, around string, p *testenv.Proxy) {
	t.Helper()
	direct = testenv.Postgres(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p = testenv.NewProxy(t, u.Host)
	u.Host = p.Addr
	return direct, u.String(), p
}
