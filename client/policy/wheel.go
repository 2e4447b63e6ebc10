package policy

import (
	"math"
	"math/bits"
	"sort"
)

// wheel is the circle of slots of weighted round robin, as many for each member as its weight. It finds
// the member of a slot in constant time.
type wheel struct {
	total  uint64   // slots; 0 for no members
	stride uint64   // from one turn to the next; has no divisor in common with total
	ends   []uint64 // of member i: the slot behind its last
	guide  []int32  // by the upper bits of a slot: the first member that may have it
	shift  uint
}

// newWheel returns the wheel of the weights, all of them at least 1. It divides
// them by what they have in common.
func newWheel(weights []uint64) wheel {
	var common uint64
	for _, w := range weights {
		common = gcd(common, w)
	}
	w := wheel{ends: make([]uint64, len(weights))}
	for i, weight := range weights {
		w.total += weight / common
		w.ends[i] = w.total
	}
	if w.total == 0 {
		return w
	}
	w.stride = strideOf(w.total)
	w.shift = uint(bits.Len64(w.total / uint64(len(weights)))) // about one or two members share an entry
	w.guide = make([]int32, w.total>>w.shift+2)
	member := 0
	for entry := range w.guide {
		for member < len(weights)-1 && w.ends[member] <= uint64(entry)<<w.shift {
			member++
		}
		w.guide[entry] = int32(member)
	}
	return w
}

// strideOf returns about the golden section of the slots: multiples of it spread
// evenly, so that turns of a heavy member lie apart, and having no divisor in common it
// meets each slot once in a round.
func strideOf(total uint64) uint64 {
	stride := max(1, uint64(float64(total)*(math.Phi-1)))
	for gcd(stride, total) != 1 {
		stride++
	}
	return stride
}

// turn returns the member whose turn it is. In any total turns in a row each
// member has exactly as many as its weight.
func (w *wheel) turn(n uint64) int {
	hi, lo := bits.Mul64(n%w.total, w.stride)
	return w.memberAt(bits.Rem64(hi, lo, w.total))
}

// maxWalk is how many members may share an entry of the guide before a binary search
// replaces the linear one.
const maxWalk = 8

// memberAt returns the member that has the slot, which is less than total.
func (w *wheel) memberAt(slot uint64) int {
	i, last := int(w.guide[slot>>w.shift]), int(w.guide[slot>>w.shift+1])
	if last-i > maxWalk {
		return i + sort.Search(last-i, func(n int) bool { return w.ends[i+n] > slot })
	}
	for w.ends[i] <= slot {
		i++
	}
	return i
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
