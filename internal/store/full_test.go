package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/money"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestCreate_says_that_the_disk_is_full_and_goes_on_when_it_is_not(t *testing.T) {
	t.Parallel()
	db := testenv.Open(t, store.Config{URL: testenv.SQLite(t)})
	create := func(n int) error {
		at := time.Now()
		p, s, err := order.NewProduct(order.ProductInput{
			SKU: fmt.Sprint("P", n), Name: "Brick", Description: strings.Repeat("x", 4000), Price: money.Money{Minor: 1, Currency: "EUR"},
		}, at)
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Products().Create(t.Context(), claim.None, p, s)
		return err
	}
	// The engine refuses to grow the file just as it does when the disk is full.
	db.Exec(t, "PRAGMA max_page_count = 150")
	stored, full := 0, error(nil)
	for full == nil && stored < 1000 {
		if full = create(stored); full == nil {
			stored++
		}
	}
	if f := fault.From(full); f.Kind() != fault.KindUnavailable || !strings.Contains(f.Message, "cannot store") || f.Err == nil {
		t.Fatalf("a full disk gave %v after %d products, want UNAVAILABLE with a cause", full, stored)
	}
	if n, err := db.Products().Count(t.Context(), order.ProductFilter{}); err != nil || n != stored {
		t.Errorf("%d products are there (%v), want the %d that were answered as stored", n, err, stored)
	}
	db.Exec(t, "PRAGMA max_page_count = 1000000")
	if err := create(stored); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if found, err := db.Audit(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("the audit found %v, %v", found, err)
	}
}
