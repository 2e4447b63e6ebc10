package chaos

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // to read the log by SQL
	_ "modernc.org/sqlite"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// What the tests of chaos are made of. The rates are such that the machine is
// not what is tested: about 250 events a second, a dozen times that to readers.
const (
	callers         = 25 // writers that send mutations
	committers      = 25 // writers with transactions of their own, on PostgreSQL; elsewhere they are callers, too
	readers         = 20
	scarceProducts  = 8  // that callers sell and stock
	rareProducts    = 60 // that committers change; one in four is not public
	customers       = 5
	callPause       = 150 * time.Millisecond // between two calls, in the mean
	commitPause     = 50 * time.Millisecond
	holdShort       = 200 * time.Millisecond // a transaction stays open, at most
	holdLong        = 5 * time.Second        // but some do as long as this
	holdLongPercent = 3
	rollbackPercent = 5
	killPause       = 2 * time.Second         // between two kills
	keepAlive       = 500 * time.Millisecond  // of a quiet stream
	readTimeout     = 2500 * time.Millisecond // after which a reader gives up a silent node
	stayTime        = 3 * time.Second         // of a reader at a node, in the mean
	answerTime      = 3 * time.Second         // a writer waits for an answer
	quietTime       = 2 * time.Second         // before the storm begins
	settleTime      = time.Minute             // for all readers to receive the rest; far more than it takes
)

// stormTime is how long nodes or lines are troubled: ten minutes in a soak.
func stormTime(ci time.Duration) time.Duration {
	switch {
	case testenv.Soak():
		return 10 * time.Minute
	case testing.Short():
		return ci / 4
	default:
		return ci
	}
}

// person is a customer with a key that outlives the test.
type person struct{ id, key string }

// fleet is some nodes on one database, with writers and readers.
type fleet struct {
	t        *testing.T
	postgres bool
	db       *sql.DB
	nodes    []*testenv.Process
	root     harness.Caller // an ADMIN's key
	people   []person
	scarce   []string                        // ids of the products that callers sell
	wake     func(ctx context.Context) error // tells the nodes that events wait, as a node does after its commit

	book     *book
	readers  []*reader
	storm    time.Time // when it began
	troubles int
	fallen   map[int]leadership // of nodes that numbered events, by epoch, until they were killed or frozen
}

// newFleet starts nodes on the database.
func newFleet(t *testing.T, size int, database string, env ...string) *fleet {
	t.Helper()
	harness.RunCommand(t, database, "migrate")
	env = append(harness.Settings(database), append(env, "BACKPLANE_LIMIT_KEEP_ALIVE="+keepAlive.String())...)
	f := &fleet{
		t: t, postgres: !strings.HasPrefix(database, "sqlite:"), db: openSQL(t, database), book: newBook(),
		wake: func(context.Context) error { return nil }, fallen: make(map[int]leadership),
	}
	for range size {
		f.nodes = append(f.nodes, testenv.Server(t, env...))
	}
	f.furnish()
	return f
}

func openSQL(t *testing.T, database string) *sql.DB {
	t.Helper()
	driver, source := "pgx", database
	if path, embedded := strings.CutPrefix(database, "sqlite:"); embedded {
		driver, source = "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(committers + 5)
	db.SetMaxIdleConns(committers + 5)
	t.Cleanup(func() { db.Close() })
	return db
}

// furnish makes products and customers.
func (f *fleet) furnish() {
	f.t.Helper()
	root := harness.SignInAdmin(f.t, f.nodes[0])
	for i := range scarceProducts {
		f.scarce = append(f.scarce, harness.CreateProduct(f.t, root, fmt.Sprint("P", i), 10_000_000))
	}
	for i := range rareProducts {
		root.Do(f.t, `mutation($sku: String!, $active: Boolean!) {
			createProduct(input: {sku: $sku, name: $sku, active: $active, price: {amount: "1.00", currency: "EUR"}}) { userErrors { code } }
		}`, map[string]any{"sku": fmt.Sprint("R", i), "active": i%4 != 0})
	}
	f.root = harness.Caller{Token: key(f.t, root)}
	for i := range customers {
		c := harness.SignUp(f.t, f.nodes[0], fmt.Sprint("customer ", i))
		id := harness.Text(c.Do(f.t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
		f.people = append(f.people, person{id, key(f.t, c)})
	}
}

// key makes an API key with all that its owner may do here.
func key(t *testing.T, c harness.Caller) string {
	t.Helper()
	data := c.Do(t, `mutation { createApiKey(input: {name: "chaos", scopes: ["users:read", "products:write", "orders:read", "orders:write"]}) {
		secret userErrors { code } } }`, nil)
	secret := harness.Text(data, "createApiKey", "secret")
	if secret == "" {
		t.Fatalf("createApiKey gave %v", data)
	}
	return secret
}

// where returns a caller of any node, alive or not, with the token.
func (f *fleet) where(token string) harness.Caller {
	return harness.Caller{BaseURL: f.nodes[rand.IntN(len(f.nodes))].BaseURL, Token: token}
}

// weather is what befalls a fleet: trouble is called every pause.
type weather struct {
	storm   time.Duration
	pause   time.Duration
	trouble func()
}

// endure lets writers write and readers read, first in peace and then in the
// storm, and checks what every reader received. Nothing is mended before the readers have
// all: what is cut stays cut.
func (f *fleet) endure(w weather) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), quietTime+w.storm+2*settleTime)
	defer cancel()
	over := make(chan struct{})
	var writing, reading sync.WaitGroup
	f.write(ctx, &writing, over)
	reads, leave := context.WithCancel(ctx)
	defer leave()
	f.read(reads, &reading)
	harness.Pause(ctx, quietTime)
	f.storm = time.Now()
	for until := f.storm.Add(w.storm); time.Now().Before(until); {
		harness.Pause(ctx, w.pause)
		w.trouble()
		f.troubles++
	}
	close(over)
	writing.Wait()
	log := f.settle()
	leave()
	reading.Wait()
	f.check(log)
	f.report(log)
}

func (f *fleet) write(ctx context.Context, wg *sync.WaitGroup, over <-chan struct{}) {
	for n := range callers + committers {
		if n < callers || !f.postgres { // a file has one writer, which is the server
			wg.Go(func() { f.call(ctx, n, over) })
		} else {
			wg.Go(func() { f.commit(ctx, n, over) })
		}
	}
}

// read starts the readers. Half begin at once, the others while the nodes are busy.
func (f *fleet) read(ctx context.Context, wg *sync.WaitGroup) {
	for n := range readers {
		if n == readers/2 {
			harness.Pause(ctx, quietTime/3)
		}
		cursor := harness.Caller{BaseURL: f.nodes[0].BaseURL, Token: f.root.Token}.EventCursor(f.t)
		r := f.newReader(n, cursor)
		f.readers = append(f.readers, r)
		wg.Go(func() { r.read(ctx, f.where) })
	}
}

// settle waits until every event has its place and every reader has what it is
// due, and returns the log.
func (f *fleet) settle() []entry {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), settleTime)
	defer cancel()
	for f.count(`SELECT COUNT(*) FROM events WHERE position IS NULL`) > 0 && ctx.Err() == nil {
		harness.Pause(ctx, 20*time.Millisecond)
	}
	log := f.log()
	for _, r := range f.readers {
		for want := len(r.due(log)); r.has() < want && ctx.Err() == nil; {
			harness.Pause(ctx, 20*time.Millisecond)
		}
	}
	harness.Pause(ctx, 200*time.Millisecond) // in which nothing more may come
	return log
}

// entry is an event as the database has it.
type entry struct {
	spot

	seq                 int64
	version             int
	kind, subject, user string
	public              bool
}

// log reads the whole log by SQL.
func (f *fleet) log() (log []entry) {
	f.t.Helper()
	rows, err := f.db.QueryContext(f.t.Context(), `SELECT seq, position, id, type, subject_id, subject_version, COALESCE(user_id, ''), data
		FROM events ORDER BY position`)
	if err != nil {
		f.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var e entry
		var data []byte
		if err := rows.Scan(&e.seq, &e.position, &e.id, &e.kind, &e.subject, &e.version, &e.user, &data); err != nil {
			f.t.Fatalf("read the log: %v", err) // also if an event has no position
		}
		if strings.HasPrefix(e.kind, "product.") {
			var product struct{ Active bool }
			if err := json.Unmarshal(data, &product); err != nil {
				f.t.Fatal(err)
			}
			e.public = product.Active
		}
		log = append(log, e)
	}
	if err := rows.Err(); err != nil {
		f.t.Fatal(err)
	}
	return log
}

func (f *fleet) count(query string) (n int) {
	f.t.Helper()
	if err := f.db.QueryRowContext(f.t.Context(), query).Scan(&n); err != nil {
		f.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// check audits the log and compares it with what writers and readers know.
func (f *fleet) check(log []entry) {
	f.t.Helper()
	for _, fault := range slices.Concat(audit(log), f.book.faults(log)) {
		f.t.Error(fault)
	}
	for _, r := range f.readers {
		for _, fault := range r.faults(log) {
			f.t.Errorf("%s: %s", r.name, fault)
		}
	}
	if out, err := f.nodes[0].Run("doctor"); err != nil {
		f.t.Errorf("doctor: %v\n%s", err, out)
	}
}

// audit tells of gaps and disorder in the log itself.
func audit(log []entry) (found []string) {
	last := make(map[string]entry)
	for i, e := range log {
		if e.position != int64(i+1) {
			return append(found, fmt.Sprintf("the log has %s at %d, where %d should be", e.id, e.position, i+1))
		}
		if before := last[e.subject]; before.version > e.version || before.seq > e.seq {
			found = append(found, fmt.Sprintf("%d of %s has version %d and identity %d, behind version %d and identity %d at %d",
				e.position, e.subject, e.version, e.seq, before.version, before.seq, before.position))
		}
		last[e.subject] = e
	}
	return found
}

// leadership is the time in which a node owns the sequencer's lease.
type leadership struct {
	node  int
	epoch int
	at    time.Time // it began, or ended
}

var takes = regexp.MustCompile(`time=(\S+) .*msg="sequencer started".* epoch=(\d+)`)

// leaderships returns the begins of leaderships that the nodes have logged, by epoch.
func (f *fleet) leaderships() map[int]leadership {
	f.t.Helper()
	all := make(map[int]leadership)
	for n, p := range f.nodes {
		for _, m := range takes.FindAllStringSubmatch(p.Logs(), -1) {
			at, err := time.Parse(time.RFC3339Nano, m[1])
			if err != nil {
				f.t.Fatal(err)
			}
			epoch, _ := strconv.Atoi(m[2]) // digits only
			all[epoch] = leadership{n, epoch, at}
		}
	}
	return all
}

// leader is the node that said last that it numbers events.
func (f *fleet) leader() (last leadership) {
	f.t.Helper()
	for _, t := range f.leaderships() {
		if t.epoch > last.epoch {
			last = t
		}
	}
	return last
}

// falls notes that a node is killed or frozen now.
func (f *fleet) falls(node int) {
	f.t.Helper()
	l := f.leader()
	if _, known := f.fallen[l.epoch]; f.postgres && l.node == node && !known {
		f.fallen[l.epoch] = leadership{node, l.epoch, time.Now()}
	}
}

// successions are the times from the fall of each node that numbered events to
// the begin of the next one.
func (f *fleet) successions() (times []time.Duration) {
	f.t.Helper()
	all := f.leaderships()
	for _, fell := range f.fallen {
		if next, ok := all[fell.epoch+1]; ok {
			times = append(times, next.at.Sub(fell.at))
		}
	}
	return times
}

// report tells what was measured.
func (f *fleet) report(log []entry) {
	f.t.Helper()
	var quiet, storm []time.Duration
	resumed, ends, deliveries := 0, map[string]int{}, 0
	for _, r := range f.readers {
		resumed, deliveries = resumed+r.resumed, deliveries+len(r.got)
		for end, n := range r.ends {
			ends[end] += n
		}
		for _, g := range r.got {
			switch at, ours := f.book.committed[g.id]; {
			case !ours:
			case at.Before(f.storm.Add(-time.Second)):
				quiet = append(quiet, g.at.Sub(at))
			case at.After(f.storm):
				storm = append(storm, g.at.Sub(at))
			}
		}
	}
	took := time.Since(f.storm) + quietTime
	f.t.Logf("%d events, %.0f/s; %d deliveries, %.0f/s; %d troubles; readers resumed %d times; %d transactions were open for %v",
		len(log), float64(len(log))/took.Seconds(), deliveries, float64(deliveries)/took.Seconds(), f.troubles, resumed, f.book.held, holdLong)
	f.t.Logf("from commit to reader: %s in peace; %s in the storm", spread(quiet), spread(storm))
	f.t.Logf("streams ended with %v; writers asked again after %v", ends, f.book.refusals)
	f.t.Logf("from the fall of a node that numbers events to the next one: %s", spread(f.successions()))
}

// spread is the middle, the last hundredth and the end of some times.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "nothing measured"
	}
	slices.Sort(d)
	at := func(share float64) time.Duration {
		return d[int(share*float64(len(d)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, longest %v of %d", at(0.5), at(0.99), at(1), len(d))
}
