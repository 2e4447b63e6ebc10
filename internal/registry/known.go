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
	well      int                  // of them, those that pass
	set       *Set                 // nil if it must be made anew
	kept      *Set                 // the one before, good for a moment while there are very many
	madeAt    time.Time
}

func (e *entry) put(i *Instance) {
	if before := e.instances[i.InstanceID]; before == nil {
		e.ids = inserted(e.ids, i.InstanceID)
	} else if before.Status == Passing {
		e.well--
	}
	if i.Status == Passing {
		e.well++
	}
	e.instances[i.InstanceID], e.set = i, nil
}

func (e *entry) remove(instanceID string) {
	if e.instances[instanceID].Status == Passing {
		e.well--
	}
	delete(e.instances, instanceID)
	e.ids, e.set = deleted(e.ids, instanceID), nil
}

// many is how many instances make a Set too dear to be made for each change.
const many = 1000

// current makes the Set anew if it must be. Of very many instances the one
// before does for a moment, 10 µs for each.
func (e *entry) current(now time.Time) *Set {
	if e.set != nil {
		return e.set
	}
	if n := len(e.instances); e.kept != nil && n > many && now.Sub(e.madeAt) < time.Duration(n)*10*time.Microsecond {
		return e.kept
	}
	set := &Set{Service: e.service}
	for _, name := range e.ids {
		if i := e.instances[name]; e.service.InUse(i) {
			set.Instances = append(set.Instances, i)
		}
	}
	e.set, e.kept, e.madeAt = set, set, now
	return set
}

func inserted(sorted []string, s string) []string {
	n, found := slices.BinarySearchFunc(sorted, s, strings.Compare)
	if found {
		return sorted
	}
	return slices.Insert(sorted, n, s)
}

func deleted(sorted []string, s string) []string {
	n, found := slices.BinarySearchFunc(sorted, s, strings.Compare)
	if !found {
		return sorted
	}
	return slices.Delete(sorted, n, n+1)
}
