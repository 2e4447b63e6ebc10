package registry

import (
	"slices"
	"strings"
	"time"
)

// entry is a service with its instances.
type entry struct {
	service   *Service
	instances map[string]*Instance // by the ids that their owners use
	ids       []string             // of them, sorted
	passing   int                  // of them, those that pass
	set       *Set                 // nil if it must be rebuilt
	previous  *Set                 // the set before, served for a moment if it is large
	builtAt   time.Time
}

func (e *entry) putInstance(i *Instance) {
	if before := e.instances[i.InstanceID]; before == nil {
		e.ids = insertSorted(e.ids, i.InstanceID)
	} else if before.Status == Passing {
		e.passing--
	}
	if i.Status == Passing {
		e.passing++
	}
	e.instances[i.InstanceID], e.set = i, nil
}

func (e *entry) removeInstance(instanceID string) {
	if e.instances[instanceID].Status == Passing {
		e.passing--
	}
	delete(e.instances, instanceID)
	e.ids, e.set = deleteSorted(e.ids, instanceID), nil
}

// largeSet is how many instances make a Set too expensive to rebuild for each change.
const largeSet = 1000

// currentSet rebuilds the Set if it must. A large previous set is served for up to 10 µs per
// instance instead.
func (e *entry) currentSet(now time.Time) *Set {
	if e.set != nil {
		return e.set
	}
	if n := len(e.instances); e.previous != nil && n > largeSet && now.Sub(e.builtAt).Abs() < time.Duration(n)*10*time.Microsecond {
		return e.previous
	}
	set := &Set{Service: e.service}
	for _, name := range e.ids {
		if i := e.instances[name]; e.service.InUse(i) {
			set.Instances = append(set.Instances, i)
		}
	}
	e.set, e.previous, e.builtAt = set, set, now
	return set
}

func insertSorted(sorted []string, s string) []string {
	n, found := slices.BinarySearchFunc(sorted, s, strings.Compare)
	if found {
		return sorted
	}
	return slices.Insert(sorted, n, s)
}

func deleteSorted(sorted []string, s string) []string {
	n, found := slices.BinarySearchFunc(sorted, s, strings.Compare)
	if !found {
		return sorted
	}
	return slices.Delete(sorted, n, n+1)
}
