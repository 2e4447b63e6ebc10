package registry

import (
	"time"

	"github.com/backplane-dev/backplane/internal/dbclock"
)

// MassFailureGuard is a panic threshold: a network partition looks like instances that died, so
// when most of a service fails at once, its last healthy instances stay in use.
type MassFailureGuard struct {
	Window      time.Duration // within which more than half of the instances must fail
	MaxDegraded time.Duration // after which the service leaves degraded anyway
}

// InUse reports whether calls may go to an instance of the service: to those
// that pass and, while the service is degraded, to those that passed before.
func (s *Service) InUse(i *Instance) bool { return i.Status == Passing || s.keeps(i) }

// keeps reports whether the service keeps a critical instance in use while it is degraded.
func (s *Service) keeps(i *Instance) bool {
	return s.DegradedSince != nil && i.Status == Critical && !i.StatusSince.Before(*s.DegradedSince)
}

// EvaluateMassFailure decides by the statuses of all instances whether the service is degraded,
// and records service.updated if that changes.
//
// It enters degraded when more than half of the instances that were healthy within the window
// have become critical. It leaves when as many are healthy as it keeps in use of those that failed,
// whichever they are: instances under new names replace lost ones. After MaxDegraded it leaves anyway:
// then the failures were real.
func (s *Service) EvaluateMassFailure(all []*Instance, g MassFailureGuard, at time.Time) {
	since := at.Add(-g.Window)
	if s.DegradedSince != nil {
		since = *s.DegradedSince
	}
	healthy, failed, first := 0, 0, at
	for _, i := range all {
		switch {
		case i.Removed:
		case i.Status == Passing:
			healthy++
		case i.Status == Critical && !i.StatusSince.Before(since):
			failed++
			if i.StatusSince.Before(first) {
				first = i.StatusSince
			}
		}
	}
	switch {
	case s.DegradedSince == nil && failed > healthy:
		s.EnterDegraded(first, at)
	case s.DegradedSince != nil && (healthy >= failed || !dbclock.Open(*s.DegradedSince, g.MaxDegraded, at)):
		s.LeaveDegraded(at)
	}
}
