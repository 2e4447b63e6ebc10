package executor

import "testing"

func TestLRU_evicts_the_least_recently_used_values(t *testing.T) {
	t.Parallel()
	c := newLRU[int](10 * (entryBytes + 10))
	for i, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		c.put(key, i, 10)
	}
	c.get("a")
	c.put("k", 10, 10)
	c.put("a", 99, 10)
	c.put("huge", 1, c.limit)
	for key, want := range map[string]bool{"a": true, "b": false, "c": true, "k": true, "huge": false} {
		if _, ok := c.get(key); ok != want {
			t.Errorf("get(%s) found it = %t, want %t", key, ok, want)
		}
	}
	if v, _ := c.get("a"); v != 0 {
		t.Errorf("get(a) = %d, want the first value put", v)
	}
	if c.size > c.limit || len(c.items) != c.order.Len() {
		t.Errorf("size = %d of %d, %d items of %d, want a bounded cache in step", c.size, c.limit, len(c.items), c.order.Len())
	}
}
