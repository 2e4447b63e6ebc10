package harness

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/admin"
)

// Metric returns the value of a metric, by its name with labels, of the admin listener at the address.
func Metric(t *testing.T, address, name string) float64 {
	t.Helper()
	all, err := admin.ReadMetrics(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	value, found := all[name]
	if !found {
		t.Fatalf("there is no metric %s", name)
	}
	return value
}
