package cache

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/maypok86/otter/v2"
)

// text is a value of a region.
type text struct {
	value string
	size  uint32
}

func (t *text) weight() uint32 { return t.size }

// testPage is a value of another region.
type testPage struct{ size uint32 }

func (p *testPage) weight() uint32 { return p.size }

func newTestMemory(t *testing.T, bytes int) (*memory, *region[*text], *region[*testPage]) {
	m := newMemory(bytes)
	t.Cleanup(m.close)
	return m, newRegion[*text](m, nil), newRegion[*testPage](m, nil)
}

func TestMemory_gives_the_whole_budget_to_one_region_that_needs_it(t *testing.T) {
	t.Parallel()
	m, texts, pages := newTestMemory(t, 100_000)
	for i := range 2000 {
		texts.set(strconv.Itoa(i), &text{size: 100})
	}
	m.values.CleanUp()
	var l Level
	texts.addSize(&l)
	if l.Bytes < 90_000 || l.Bytes > 100_000 {
		t.Errorf("one region holds %d bytes of 100,000", l.Bytes)
	}
	for range 50 { // what is read often gets its place back
		for i := range 300 {
			if _, ok := pages.get(strconv.Itoa(i)); !ok {
				pages.set(strconv.Itoa(i), &testPage{size: 100})
			}
		}
		m.values.CleanUp()
	}
	var p Level
	pages.addSize(&p)
	texts.addSize(&l)
	if p.Entries < 150 || p.Bytes+l.Bytes > 100_000 {
		t.Errorf("the regions hold %d entries and %d bytes together, want most of 300 pages within 100,000 bytes", p.Entries, p.Bytes+l.Bytes)
	}
}

func TestMemory_counts_what_each_region_holds(t *testing.T) {
	t.Parallel()
	m, texts, pages := newTestMemory(t, 20_000)
	for range 20_000 {
		id := strconv.Itoa(rand.IntN(400))
		switch rand.IntN(6) {
		case 0, 1, 2:
			texts.set(id, &text{value: id, size: 1 + rand.Uint32N(300)})
		case 3:
			pages.set(id, &testPage{size: 1 + rand.Uint32N(300)})
		case 4:
			texts.compute(id, func(old *text, found bool) (*text, otter.ComputeOp) {
				if found != (old != nil) || found && old.value != id {
					t.Errorf("the value of %s is %v, found %v", id, old, found)
				}
				return nil, otter.InvalidateOp
			})
		case 5:
			if v, ok := texts.get(id); ok && v.value != id {
				t.Errorf("the value of %s is %q", id, v.value)
			}
		}
	}
	m.values.CleanUp()
	var want [2]Level
	for k, v := range m.values.All() {
		want[k.region].Entries++
		want[k.region].Bytes += uint64(v.weight())
	}
	var got [2]Level
	texts.addSize(&got[0])
	pages.addSize(&got[1])
	if got != want {
		t.Errorf("the regions count %+v, want %+v", got, want)
	}
	m.clear()
	texts.addSize(&got[0])
	pages.addSize(&got[1])
	if got != [2]Level{} {
		t.Errorf("the regions count %+v after everything was cleared", got)
	}
}
