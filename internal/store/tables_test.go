package store_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

var listedTable = regexp.MustCompile("(?m)^\\| `(\\w+)` \\|")

// TestTables_have_their_bound_in_the_documentation: a change that adds a table says what removes its rows.
func TestTables_have_their_bound_in_the_documentation(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, found := strings.Cut(string(text), "\n## What bounds each table\n")
	chapter, _, ends := strings.Cut(chapter, "\n## ")
	if !found || !ends {
		t.Fatal("docs/operations.md has no chapter that says what bounds each table")
	}
	var listed []string
	for _, row := range listedTable.FindAllStringSubmatch(chapter, -1) {
		listed = append(listed, row[1])
	}
	slices.Sort(listed)
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		if tables := db.Tables(t); !slices.Equal(listed, tables) {
			t.Errorf("docs/operations.md lists the bounds of\n%v\nbut the tables are\n%v", listed, tables)
		}
	})
}

// BenchmarkTables_bytes measures what docs/operations.md says of the growth of the database: the bytes of a row with its
// indexes, in steady state. It places orders of one line under idempotency keys, and assigns positions and
// vacuums in between, as running servers do.
//
//	go run ./internal/testenv/run -- go test ./internal/store -run '^$' -bench Tables_bytes -benchtime 1x
func BenchmarkTables_bytes(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": testenv.SQLite, "postgres": testenv.Postgres} {
		b.Run(name, func(b *testing.B) {
			db := testenv.Open(b, store.Config{URL: url(b)})
			who := givenUser(b, db)
			givenProduct(b, db, "cup", 1_000_000)
			sequence := newSequence(b, db)
			tables := map[string]string{"event": "events", "key": "idempotency_keys", "order": "orders", "line": "order_items", "security_event": "security_events"}
			bytes, rows := map[string]int{}, map[string]int{}
			for unit, table := range tables {
				bytes[unit], rows[unit] = db.TableBytes(b, table), countRows(b, db, table)
			}
			for b.Loop() {
				for range 20 {
					growTables(b, db, sequence, who.ID)
				}
			}
			b.ReportMetric(0, "ns/op")
			for unit, table := range tables {
				b.ReportMetric(float64(db.TableBytes(b, table)-bytes[unit])/float64(countRows(b, db, table)-rows[unit]), "B/"+unit)
			}
		})
	}
}

// growTables places 250 orders, records as many security events, and assigns positions.
func growTables(b *testing.B, db *store.DB, sequence *store.Sequence, who uid.User) {
	b.Helper()
	ctx := auth.With(b.Context(), &auth.Principal{UserID: who, Credential: auth.SessionCredential("ses_1")}) // the actor
	for i := range 250 {
		if _, err := placeOrder(ctx, callUnder(who, rand.Text()), db, who, "cup"); err != nil {
			b.Fatal(err)
		}
		if err := db.SecurityEvents().Append(b.Context(), []security.Event{refusal(security.PermissionDenied, who, fmt.Sprint("192.0.2.", i))}); err != nil {
			b.Fatal(err)
		}
	}
	if sequence != nil {
		l, ok, err := sequence.Acquire(b.Context(), "bench", time.Minute)
		if err != nil || !ok {
			b.Fatal(ok, err)
		}
		if _, _, err := sequence.AssignPositions(b.Context(), l, time.Minute, 1000); err != nil {
			b.Fatal(err)
		}
	}
	db.Vacuum(b)
}

func countRows(b *testing.B, db *store.DB, table string) int {
	b.Helper()
	return db.Int(b.Context(), b, `SELECT COUNT(*) FROM `+table)
}
