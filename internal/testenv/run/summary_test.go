package main

import "testing"

func TestSummary(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, notes, want string
	}{
		{"is empty if nothing was left out", "", ""},
		{
			"names each test once, below what it needs",
			"store\tTestOrders/commits\tRedis: gone\nstore\tTestOrders/rolls back\tRedis: gone\ncache\tTestFill\tRedis: gone\ncache\tTestFill\tNode: gone\n",
			`
Left out, 1 tests and cases: Node: gone
  cache: TestFill

Left out, 3 tests and cases: Redis: gone
  cache: TestFill
  store: TestOrders

Run make services to install what they need.
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := summary(tt.notes); got != tt.want {
				t.Errorf("summary = %q, want %q", got, tt.want)
			}
		})
	}
}
