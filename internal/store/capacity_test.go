package store_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestCapacity_counts_the_connections_of_all_nodes(t *testing.T) {
	t.Parallel()
	url := testenv.PostgresPrimary(t, "max_connections=100").URL
	db := testenv.Open(t, store.Config{URL: url})
	want := store.Capacity{PerNode: 19, Nodes: 1, Allowed: 97}
	if got, err := db.Capacity(t.Context(), true); got != want || err != nil || got.IsExceeded() {
		t.Errorf("Capacity = %+v, %v, want %+v", got, err, want)
	}
	for n := range 6 {
		db.Exec(t, `INSERT INTO pickers (id, expires_at, calls) VALUES (?, clock_timestamp() + INTERVAL '1 minute', '{}')`, string(rune('a'+n)))
		got, err := db.Capacity(t.Context(), true)
		if exceeded := n+1 > 5; got.Nodes != n+1 || got.IsExceeded() != exceeded || err != nil {
			t.Errorf("Capacity with %d nodes = %+v, %v, want it exceeded: %v", n+1, got, err, exceeded)
		}
	}
	onPostgres(t, url, "ALTER DATABASE postgres CONNECTION LIMIT 15")
	if got, err := db.Capacity(t.Context(), false); got.PerNode != 17 || got.Allowed != 15 || err != nil {
		t.Errorf("Capacity of a database with a limit = %+v, %v, want 17 connections of 15", got, err)
	}
}
