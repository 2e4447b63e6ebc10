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
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// The parameters of the chaos tests. The rates stay well below what the machine can do:
// about 250 events a second, and a dozen times that to readers.
const (
	callers         = 25 // writers that send mutations
	committers      = 25 // writers with transactions of their own, on PostgreSQL; elsewhere they are callers, too
	readers         = 20
	scarceProducts  = 8  // that callers order and restock
	rareProducts    = 60 // that committers change; one in four is not public
	customers       = 5
	callPause       = 150 * time.Millisecond // between two calls, in the mean
	commitPause     = 50 * time.Millisecond
	holdShort       = 200 * time.Millisecond // longest time that most transactions stay open
	holdLong        = 5 * time.Second        // longest time of the rest
	holdLongPercent = 3
	rollbackPercent = 5
	killPause       = 2 * time.Second         // between two kills
	keepAlive       = 500 * time.Millisecond  // of a quiet stream
	readTimeout     = 2500 * time.Millisecond // after which a reader leaves a silent node
	stayTime        = 3 * time.Second         // mean time of a reader at a node
	answerTime      = 3 * time.Second         // how long a writer waits for an answer
	quietTime       = 2 * time.Second         // before the first fault
	settleTime      = time.Minute             // for all readers to receive the rest; far more than it takes
)

// faultDuration is how long faults are injected: ten minutes in a soak.
func faultDuration(ci time.Duration) time.Duration {
	switch {
	case testenv.Soak():
		return 10 * time.Minute
	case testing.Short():
		return ci / 4
	default:
		return ci
	}
}

// customer is a customer with a key that outlives the test.
type customer struct{ id, key string }

// fleet is some nodes on one database, with writers and readers.
type fleet struct {
	cursors  *cursor.Codec // of the cursors that clients get
	t        *testing.T
	postgres bool
	db       *sql.DB
	nodes    []*testenv.Process
	root     harness.Caller // an ADMIN's key
	people   []customer
	scarce   []string                        // ids of the products that callers sell
	wake     func(ctx context.Context) error // notifies the nodes of new events, as a node does after its commit

	book     *ledger
	readers  []*reader
	storm    time.Time // when the faults began
	troubles int
	fallen   map[int]leaseTerm // lease terms that ended by a kill or a freeze, by epoch
}

// newFleet starts nodes on the database.
func newFleet(t *testing.T, size int, database string, env ...string) *fleet {
	t.Helper()
	harness.RunCommand(t, database, "migrate")
	env = append(harness.Settings(database), append(env, "BACKPLANE_LIMIT_KEEP_ALIVE="+keepAlive.String())...)
	f := &fleet{
		t: t, postgres: !strings.HasPrefix(database, "sqlite:"), db: openSQL(t, database), book: newLedger(),
		wake: func(context.Context) error { return nil }, fallen: make(map[int]leaseTerm), cursors: harness.Cursors(t, database),
	}
	for range size {
		f.nodes = append(f.nodes, testenv.Server(t, env...))
	}
	f.createData()
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

// createData makes products and customers.
func (f *fleet) createData() {
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
	f.root = harness.Caller{Token: createKey(f.t, root)}
	for i := range customers {
		c := harness.SignUp(f.t, f.nodes[0], fmt.Sprint("customer ", i))
		id := harness.Text(c.Do(f.t, `{ viewer { user { id } } }`, nil), "viewer", "user", "id")
		f.people = append(f.people, customer{id, createKey(f.t, c)})
	}
}

// createKey makes an API key with all scopes that the test needs.
func createKey(t *testing.T, c harness.Caller) string {
	t.Helper()
	data := c.Do(t, `mutation { createApiKey(input: {name: "chaos", scopes: ["users:read", "products:write", "orders:read", "orders:write"]}) {
		secret userErrors { code } } }`, nil)
	secret := harness.Text(data, "createApiKey", "secret")
	if secret == "" {
		t.Fatalf("createApiKey gave %v", data)
	}
	return secret
}

// nodeFor returns a caller of any node, alive or not, with the token.
func (f *fleet) nodeFor(token string) harness.Caller {
	return harness.Caller{BaseURL: f.nodes[rand.IntN(len(f.nodes))].BaseURL, Token: token}
}

// faultPlan is the fault that is injected after every pause.
type faultPlan struct {
	storm   time.Duration
	pause   time.Duration
	trouble func()
}

// runUnderFaults runs writers and readers, first without faults and then with them, and checks
// what every reader received. Faults are not repaired before the readers have everything.
func (f *fleet) runUnderFaults(w faultPlan) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), quietTime+w.storm+2*settleTime)
	defer cancel()
	over := make(chan struct{})
	var writing, reading sync.WaitGroup
	f.startWriters(ctx, &writing, over)
	reads, leave := context.WithCancel(ctx)
	defer leave()
	f.startReaders(reads, &reading)
	harness.Pause(ctx, quietTime)
	f.storm = time.Now()
	for until := f.storm.Add(w.storm); time.Now().Before(until); {
		harness.Pause(ctx, w.pause)
		w.trouble()
		f.troubles++
	}
	close(over)
	writing.Wait()
	log := f.awaitReaders()
	leave()
	reading.Wait()
	f.checkLog(log)
	f.logReport(log)
}

func (f *fleet) startWriters(ctx context.Context, wg *sync.WaitGroup, over <-chan struct{}) {
	for n := range callers + committers {
		if n < callers || !f.postgres { // a file has one writer, which is the server
			wg.Go(func() { f.runCaller(ctx, n, over) })
		} else {
			wg.Go(func() { f.runCommitter(ctx, n, over) })
		}
	}
}

// startReaders starts the readers. Half begin at once, the others while the nodes are busy.
func (f *fleet) startReaders(ctx context.Context, wg *sync.WaitGroup) {
	for n := range readers {
		if n == readers/2 {
			harness.Pause(ctx, quietTime/3)
		}
		r := f.newReader(n, harness.Caller{BaseURL: f.nodes[0].BaseURL, Token: f.root.Token}.EventCursor(f.t))
		f.readers = append(f.readers, r)
		wg.Go(func() { r.read(ctx, f.nodeFor) })
	}
}

// awaitReaders waits until every event has its position and every reader has all its
// events, and returns the log.
func (f *fleet) awaitReaders() []entry {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), settleTime)
	defer cancel()
	for f.countRows(`SELECT COUNT(*) FROM events WHERE position IS NULL`) > 0 && ctx.Err() == nil {
		harness.Pause(ctx, 20*time.Millisecond)
	}
	log := f.readLog()
	for _, r := range f.readers {
		for want := len(r.expected(log)); r.countReceived() < want && ctx.Err() == nil; {
			harness.Pause(ctx, 20*time.Millisecond)
		}
	}
	harness.Pause(ctx, 200*time.Millisecond) // no more events may arrive
	return log
}

// entry is an event as it is stored in the database.
type entry struct {
	delivery

	seq                 int64
	version             int
	kind, subject, user string
	public              bool
}

// readLog reads the whole log by SQL.
func (f *fleet) readLog() (log []entry) {
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

func (f *fleet) countRows(query string) (n int) {
	f.t.Helper()
	if err := f.db.QueryRowContext(f.t.Context(), query).Scan(&n); err != nil {
		f.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// checkLog audits the log and compares it with what writers and readers recorded.
func (f *fleet) checkLog(log []entry) {
	f.t.Helper()
	for _, fault := range slices.Concat(auditLog(log), f.book.faults(log)) {
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

// auditLog reports gaps and disorder in the log itself.
func auditLog(log []entry) (found []string) {
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

// leaseTerm is a time during which a node owns the sequencer's lease.
type leaseTerm struct {
	node  int
	epoch int
	at    time.Time // it began, or ended
}

var takes = regexp.MustCompile(`time=(\S+) .*msg="sequencer started".* epoch=(\d+)`)

// leaseTerms returns the starts of the terms that the nodes have logged, by epoch.
func (f *fleet) leaseTerms() map[int]leaseTerm {
	f.t.Helper()
	all := make(map[int]leaseTerm)
	for n, p := range f.nodes {
		for _, m := range takes.FindAllStringSubmatch(p.Logs(), -1) {
			at, err := time.Parse(time.RFC3339Nano, m[1])
			if err != nil {
				f.t.Fatal(err)
			}
			epoch, _ := strconv.Atoi(m[2]) // digits only
			all[epoch] = leaseTerm{n, epoch, at}
		}
	}
	return all
}

// lastTerm is the term that a node logged last.
func (f *fleet) lastTerm() (last leaseTerm) {
	f.t.Helper()
	for _, t := range f.leaseTerms() {
		if t.epoch > last.epoch {
			last = t
		}
	}
	return last
}

// recordKill records that a node is killed or frozen now.
func (f *fleet) recordKill(node int) {
	f.t.Helper()
	l := f.lastTerm()
	if _, known := f.fallen[l.epoch]; f.postgres && l.node == node && !known {
		f.fallen[l.epoch] = leaseTerm{node, l.epoch, time.Now()}
	}
}

// takeoverTimes returns the times from each kill of the sequencer's node to the start of
// the next term.
func (f *fleet) takeoverTimes() (times []time.Duration) {
	f.t.Helper()
	all := f.leaseTerms()
	for _, fell := range f.fallen {
		if next, ok := all[fell.epoch+1]; ok {
			times = append(times, next.at.Sub(fell.at))
		}
	}
	return times
}

// logReport logs what was measured.
func (f *fleet) logReport(log []entry) {
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
	f.t.Logf("from commit to reader: %s in peace; %s in the storm", formatPercentiles(quiet), formatPercentiles(storm))
	f.t.Logf("streams ended with %v; writers asked again after %v", ends, f.book.refusals)
	f.t.Logf("from the fall of a node that numbers events to the next one: %s", formatPercentiles(f.takeoverTimes()))
}

// formatPercentiles formats median, 99th percentile and maximum.
func formatPercentiles(d []time.Duration) string {
	if len(d) == 0 {
		return "nothing measured"
	}
	slices.Sort(d)
	at := func(share float64) time.Duration {
		return d[int(share*float64(len(d)-1))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, longest %v of %d", at(0.5), at(0.99), at(1), len(d))
}
