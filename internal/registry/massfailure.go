package registry

import "time"

// MassFailureGuard says when the news of a service is doubted: a network that is cut looks
// like instances that died.
type MassFailureGuard struct {
	Window      time.Duration // of more than half the instances that vanish within it, the last good set stays in use
	MaxDegraded time.Duration // for so long at most
}

// InUse reports whether calls may go to an instance of the service: to those
// that pass, and while the news is doubted also to those that were well before.
func (s *Service) InUse(i *Instance) bool {
	return i.Status == Passing || s.DegradedSince != nil && i.Status == Critical && !i.StatusSince.Before(*s.DegradedSince)
}

// EvaluateMassFailure decides whether the news is doubted, by what all instances of the service
// are now, and records service.updated if that changes.
//
// Doubt begins when of those that were well within the window more than half
// have become critical. It ends when more than half of those in use are well again, or
// after it was held for too long: then the news was true.
func (s *Service) EvaluateMassFailure(all []*Instance, g MassFailureGuard, at time.Time) {
	since := at.Add(-g.Window)
	if s.DegradedSince != nil {
		since = *s.DegradedSince
	}
	well, vanished, first := 0, 0, at
	for _, i := range all {
		switch {
		case i.Status == Passing:
			well++
		case i.Status == Critical && !i.StatusSince.Before(since):
			vanished++
			if i.StatusSince.Before(first) {
				first = i.StatusSince
			}
		}
	}
	switch {
	case s.DegradedSince == nil && vanished > well:
		s.EnterDegraded(first, at)
	case s.DegradedSince != nil && (well > vanished || vanished == 0 || at.Sub(*s.DegradedSince) > g.MaxDegraded):
		s.LeaveDegraded(at)
	}
}
