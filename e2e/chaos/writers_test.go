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

// book is what the writers know of their writes.
type book struct {
	mu        sync.Mutex
	acts      [][]act              // of each writer, in its order, as far as they are known to be done
	committed map[string]time.Time // events of transactions of our own, and when COMMIT was sent
	undone    map[string]bool      // events of transactions that were rolled back
	held      int                  // transactions that stayed open for holdLong
	refusals  map[string]int       // codes of answers after which a writer asked again
	broken    []string
}

// act is an event that a writer has caused: by its id, or by type and subject.
type act struct{ id, kind, subject string }

func newBook() *book {
	return &book{
		acts: make([][]act, callers+committers), committed: make(map[string]time.Time), undone: make(map[string]bool),
		refusals: make(map[string]int),
	}
}

func (b *book) note(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

// call sends mutations, one after the other, to any node, until over. Each is sent
// again until it is answered: that is what idempotency keys are for.
func (f *fleet) call(ctx context.Context, writer int, over <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(uint64(writer), 1))
	var order string // that may be cancelled
	for n := 0; !closed(over); n++ {
		vars := map[string]any{"key": fmt.Sprintf("writer %d call %d", writer, n)}
		switch dice := rnd.IntN(10); {
		case dice < 3:
			vars["id"], vars["by"] = f.scarce[rnd.IntN(len(f.scarce))], 1+rnd.IntN(5)
			f.insist(ctx, f.root.Token, `mutation($id: ID!, $by: Int!, $key: String) {
				adjustStock(input: {productId: $id, by: $by, idempotencyKey: $key}) { product { id } userErrors { code } } }`, vars)
		case dice < 5 && order != "":
			vars["id"] = order
			if f.insist(ctx, f.customer(writer).key, `mutation($id: ID!, $key: String) {
				cancelOrder(input: {id: $id, idempotencyKey: $key}) { order { id } userErrors { code } } }`, vars) != nil {
				f.book.did(writer, act{kind: "order.cancelled", subject: order})
			}
			order = ""
		default:
			vars["items"] = []any{harness.OrderLine(fmt.Sprint("P", rnd.IntN(len(f.scarce))), 1+rnd.IntN(2))}
			order = harness.Text(f.insist(ctx, f.customer(writer).key, harness.PlaceOrder, vars), "placeOrder", "order", "id")
			f.book.did(writer, act{kind: "order.placed", subject: order})
		}
		harness.Pause(ctx, rand.N(2*callPause))
	}
}

func (f *fleet) customer(writer int) person { return f.people[writer%len(f.people)] }

func (b *book) did(writer int, a ...act) {
	b.note(func() { b.acts[writer] = append(b.acts[writer], a...) })
}

// insist sends a mutation until it is answered; nil if ctx ended before.
func (f *fleet) insist(ctx context.Context, token, query string, vars map[string]any) map[string]any {
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, answerTime)
		a, err := f.where(token).Send(try, query, vars)
		cancel()
		switch {
		case err == nil && len(a.Errors) == 0:
			for name := range a.Data {
				if code := harness.Text(a.Data, name, "userErrors", 0, "code"); code != "" {
					f.book.note(func() {
						f.book.broken = append(f.book.broken, fmt.Sprintf("%s with %v was refused: %s", name, vars, code))
					})
				}
			}
			return a.Data
		case err == nil:
			code, _ := a.Errors[0].Extensions["code"].(string)
			f.book.note(func() { f.book.refusals[code]++ })
		}
		harness.Pause(ctx, rand.N(40*time.Millisecond))
	}
	f.book.note(func() { f.book.broken = append(f.book.broken, fmt.Sprintf("no answer to %v", vars)) })
	return nil
}

// commit runs transactions of its own, as a node's store does, until over: it
// locks rows, changes them, stores their events and commits, late or never.
func (f *fleet) commit(ctx context.Context, writer int, over <-chan struct{}) {
	rnd := rand.New(rand.NewPCG(uint64(writer), 2))
	for !closed(over) {
		if err := f.transact(ctx, writer, rnd); err != nil {
			f.book.note(func() {
				f.book.broken = append(f.book.broken, fmt.Sprintf("a transaction of writer %d: %v", writer, err))
			})
			return
		}
		harness.Pause(ctx, rand.N(2*commitPause))
	}
}

func (f *fleet) transact(ctx context.Context, writer int, rnd *rand.Rand) error {
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
		f.book.note(func() { f.book.held++ })
	}
	harness.Pause(ctx, hold)
	if rnd.IntN(100) < rollbackPercent {
		f.book.note(func() {
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
	f.book.note(func() {
		f.book.acts[writer] = append(f.book.acts[writer], acts...)
		for _, a := range acts {
			f.book.committed[a.id] = at
		}
	})
	return f.wake(ctx)
}

// changeProducts changes a number of products that no other transaction is changing, and
// stores the events.
func changeProducts(ctx context.Context, tx *sql.Tx, number int) (acts []act, err error) {
	changed, err := raiseVersions(ctx, tx, number)
	if err != nil {
		return nil, fmt.Errorf("change products: %w", err)
	}
	for _, p := range changed {
		e := act{id: string(uid.NewEvent(time.Now())), kind: "product.updated", subject: p.ID}
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

// rare is a product as the snapshots of committers have it.
type rare struct {
	ID          string `json:"id"`
	SKU         string `json:"sku"`
	Active      bool   `json:"active"`
	Version     int    `json:"version"`
	Description string `json:"description"`
}

func raiseVersions(ctx context.Context, tx *sql.Tx, number int) (changed []rare, err error) {
	rows, err := tx.QueryContext(ctx, `UPDATE products SET version = version + 1, updated_at = now() WHERE id IN (
			SELECT id FROM products WHERE sku LIKE 'R%' ORDER BY random() LIMIT $1 FOR UPDATE SKIP LOCKED
		) RETURNING id, sku, active, version, description`, number)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var p rare
		if err := rows.Scan(&p.ID, &p.SKU, &p.Active, &p.Version, &p.Description); err != nil {
			return nil, err
		}
		changed = append(changed, p)
	}
	return changed, rows.Err()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// faults compares what the writers know with the log: all that was done is
// there, once and in each writer's order, and nothing that was undone.
func (b *book) faults(log []entry) []string {
	found := slices.Clone(b.broken)
	byID, byWhat := make(map[string]int64, len(log)), make(map[act]int64, len(log))
	for _, e := range log {
		if b.undone[e.id] {
			found = append(found, fmt.Sprintf("%d is of a transaction that was rolled back", e.position))
		}
		byID[e.id], byWhat[act{kind: e.kind, subject: e.subject}] = e.position, e.position
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
