package eventlog

import (
	"slices"

	"github.com/backplane-dev/backplane/internal/event"
)

// crowd is the subscribers of a hub who want the same events. It is asked once
// for all of them whether it wants some, and all of them wait at one door. The
// lock of the hub guards it.
type crowd struct {
	key    string
	filter event.Filter
	wanted event.Conditions // of the filter
	size   int
	door   chan struct{}  // closed when there is something for the crowd, and replaced then
	opened event.Position // the last event for which it was
	asked  event.Position // the last event it was asked about
	answer bool
}

// wants reports whether one of the events is for the crowd.
func (c *crowd) wants(events []*event.Event) bool {
	if last := events[len(events)-1].Cursor.Position; c.asked != last {
		c.asked, c.answer = last, slices.ContainsFunc(events, c.wanted.Match)
	}
	return c.answer
}

// doors are those to be opened, so that who waits there looks again.
type doors []chan struct{}

// add makes the crowd wait at another door from now on, once for an event. The
// caller holds the lock of the hub.
func (d *doors) add(c *crowd, at event.Position) {
	if c.opened == at && at > 0 {
		return
	}
	*d = append(*d, c.door)
	c.door, c.opened = make(chan struct{}), at
}

// open wakes everybody. The caller does not hold the lock of the hub, which is
// what they want next.
func (d *doors) open() {
	for _, door := range *d {
		close(door)
	}
}

// join puts the subscriber into the crowd of those who want what it wants now.
// The caller holds the lock of the hub.
func (s *Subscription) join() {
	filter := s.filter
	if s.caller != nil {
		s.principal = s.caller()
		filter.Audience = event.AudienceOf(s.principal)
	}
	key := filter.Key()
	c := s.hub.crowds[key]
	if c == nil {
		c = &crowd{key: key, filter: filter, wanted: filter.Conditions(), door: make(chan struct{})}
		s.hub.crowds[key] = c
	}
	c.size++
	s.crowd = c
}

// part takes the subscriber out of its crowd. The caller holds the lock of the
// hub.
func (s *Subscription) part() {
	if s.crowd.size--; s.crowd.size == 0 {
		delete(s.hub.crowds, s.crowd.key)
	}
}

// changed reports whether somebody with other rights may be calling than the
// crowd is for. The caller holds a lock of the hub.
func (s *Subscription) changed() bool { return s.caller != nil && s.caller() != s.principal }

// settle puts the subscriber where it belongs if its rights have changed, and
// reports whether it was somewhere else. The caller holds the lock of the hub.
func (s *Subscription) settle() (moved bool) {
	was := s.crowd
	s.part()
	s.join()
	return s.crowd != was
}
