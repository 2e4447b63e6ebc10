package chaos

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/uid"
)

// ledger is what the writers recorded of their writes.
type ledger struct {
	mu        sync.Mutex
	acts      [][]change           // of each writer, in its order, that are known to be committed
	committed map[string]time.Time // events of transactions of our own, and when COMMIT was sent
	undone    map[string]bool      // events of transactions that were rolled back
	held      int                  // transactions that stayed open for holdLong
	refusals  map[string]int       // error codes after which a writer retried
	broken    []string
}

// change is an event that a writer caused: by its id, or by type and subject.
type change struct{ id, kind, subject string }

func newLedger() *ledger {
	return &ledger{
		acts: make([][]change, callers+committers), committed: make(map[string]time.Time), undone: make(map[string]bool),
		refusals: make(map[string]int),
	}
}

func (b *ledger) withLock(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

// runCaller sends mutations, one after the other, to any node, until over. It retries
// each under its idempotency key until it is answered.
func (f *fleet) runCaller(ctx context.Context, writer int, over <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(uint64(writer), 1))
	var order string // an order that may be cancelled
	for n := 0; !isClosed(over); n++ {
		vars := map[string]any{"key": fmt.Sprintf("writer %d call %d", writer, n)}
		switch dice := rnd.IntN(10); {
		case dice < 3:
			vars["id"], vars["by"] = f.scarce[rnd.IntN(len(f.scarce))], 1+rnd.IntN(5)
			f.callUntilAnswered(ctx, f.root.Token, `mutation($id: ID!, $by: Int!, $key: String) {
				adjustStock(input: {productId: $id, by: $by, idempotencyKey: $key}) { product { id } userErrors { code } } }`, vars)
		case dice < 5 && order != "":
			vars["id"] = order
			if f.callUntilAnswered(ctx, f.customerOf(writer).key, `mutation($id: ID!, $key: String) {
				cancelOrder(input: {id: $id, idempotencyKey: $key}) { order { id } userErrors { code } } }`, vars) != nil {
				f.book.record(writer, change{kind: "order.cancelled", subject: order})
			}
			order = ""
		default:
			vars["items"] = []any{harness.OrderLine(fmt.Sprint("P", rnd.IntN(len(f.scarce))), 1+rnd.IntN(2))}
			order = harness.Text(f.callUntilAnswered(ctx, f.customerOf(writer).key, harness.PlaceOrder, vars), "placeOrder", "order", "id")
			f.book.record(writer, change{kind: "order.placed", subject: order})
		}
		harness.Pause(ctx, rand.N(2*callPause))
	}
}

func (f *fleet) customerOf(writer int) customer { return f.people[writer%len(f.people)] }

func (b *ledger) record(writer int, a ...change) {
	b.withLock(func() { b.acts[writer] = append(b.acts[writer], a...) })
}

// callUntilAnswered sends a mutation until it is answered; nil if ctx ended before.
func (f *fleet) callUntilAnswered(ctx context.Context, token, query string, vars map[string]any) map[string]any {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, answerTime)
		a, err := f.nodeFor(token).Send(try, query, vars)
		cancel()
		switch {
		case err == nil && len(a.Errors) == 0:
			for name := range a.Data {
				if code := harness.Text(a.Data, name, "userErrors", 0, "code"); code != "" {
					f.book.withLock(func() {
						f.book.broken = append(f.book.broken, fmt.Sprintf("%s with %v was refused: %s", name, vars, code))
					})
				}
			}
			return a.Data
		case err == nil:
			code, _ := a.Errors[0].Extensions["code"].(string)
			f.book.withLock(func() { f.book.refusals[code]++ })
		}
		harness.Pause(ctx, rand.N(40*time.Millisecond))
	}
	f.book.withLock(func() { f.book.broken = append(f.book.broken, fmt.Sprintf("no answer to %v", vars)) })
	return nil
}

// runCommitter runs transactions of its own, as a node's store does, until over: it
// locks rows, changes them, stores their events and commits, late or never.
func (f *fleet) runCommitter(ctx context.Context, writer int, over <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(uint64(writer), 2))
	for !isClosed(over) {
		if err := f.commitChange(ctx, writer, rnd); err != nil {
			f.book.withLock(func() {
				f.book.broken = append(f.book.broken, fmt.Sprintf("a transaction of writer %d: %v", writer, err))
			})
			return
		}
		harness.Pause(ctx, rand.N(2*commitPause))
	}
}

func (f *fleet) commitChange(ctx context.Context, writer int, rnd *rand.Rand) error {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it has nothing to do
	acts, err := changeProducts(ctx, tx, 1+rnd.IntN(2))
	if err != nil {
		return err
	}
	hold := rand.N(holdShort)
	if rnd.IntN(100) < holdLongPercent {
		hold = holdLong
		f.book.withLock(func() { f.book.held++ })
	}
	harness.Pause(ctx, hold)
	if rnd.IntN(100) < rollbackPercent {
		f.book.withLock(func() {
			for _, a := range acts {
				f.book.undone[a.id] = true
			}
		})
		return tx.Rollback()
	}
	at := time.Now()
	if err := tx.Commit(); err != nil {
		return err
	}
	f.book.withLock(func() {
		f.book.acts[writer] = append(f.book.acts[writer], acts...)
		for _, a := range acts {
			f.book.committed[a.id] = at
		}
	})
	return f.wake(ctx)
}

// changeProducts changes a number of products that no other transaction is changing, and
// stores the events.
func changeProducts(ctx context.Context, tx *sql.Tx, number int) (acts []change, err error) {
	changed, err := raiseVersions(ctx, tx, number)
	if err != nil {
		return nil, fmt.Errorf("change products: %w", err)
	}
	for _, p := range changed {
		e := change{id: string(uid.NewEvent(time.Now())), kind: "product.updated", subject: p.ID}
		data, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO events (id, type, occurred_at, actor, subject_id, subject_version, data, touched)
			VALUES ($1, $2, now(), '', $3, $4, $5, $6)`, e.id, e.kind, p.ID, p.Version, string(data),
			fmt.Sprintf(`[{"entity":"product","id":%q,"version":%d}]`, p.ID, p.Version)); err != nil {
			return nil, fmt.Errorf("store an event: %w", err)
		}
		acts = append(acts, e)
	}
	return acts, nil
}

// versionChange is a product in the snapshots of committers.
type versionChange struct {
	ID          string `json:"id"`
	SKU         string `json:"sku"`
	Active      bool   `json:"active"`
	Version     int    `json:"version"`
	Description string `json:"description"`
}

func raiseVersions(ctx context.Context, tx *sql.Tx, number int) (changed []versionChange, err error) {
	rows, err := tx.QueryContext(ctx, `UPDATE products SET version = version + 1, updated_at = now() WHERE id IN (
			SELECT id FROM products WHERE sku LIKE 'R%' ORDER BY random() LIMIT $1 FOR UPDATE SKIP LOCKED
		) RETURNING id, sku, active, version, description`, number)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p versionChange
		if err := rows.Scan(&p.ID, &p.SKU, &p.Active, &p.Version, &p.Description); err != nil {
			return nil, err
		}
		changed = append(changed, p)
	}
	return changed, rows.Err()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// faults compares what the writers recorded with the log: all that was committed is
// there, once and in each writer's order, and nothing that was rolled back.
func (b *ledger) faults(log []entry) []string {
	found := slices.Clone(b.broken)
	byID, byWhat := make(map[string]int64, len(log)), make(map[change]int64, len(log))
	for _, e := range log {
		if b.undone[e.id] {
			found = append(found, fmt.Sprintf("%d is of a transaction that was rolled back", e.position))
		}
		byID[e.id], byWhat[change{kind: e.kind, subject: e.subject}] = e.position, e.position
	}
	for writer, acts := range b.acts {
		last := int64(0)
		for _, a := range acts {
			p := byID[a.id]
			if a.id == "" {
				p = byWhat[a]
			}
			if p <= last {
				found = append(found, fmt.Sprintf("writer %d did %v behind what is at %d, and the log has it at %d", writer, a, last, p))
			}
			last = p
		}
	}
	return found
}
