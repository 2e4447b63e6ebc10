package eventlog

import (
	"slices"

	"github.com/backplane-dev/backplane/internal/event"
)

// subscriptionGroup holds the subscriptions of a hub with equal filters. The hub matches
// new events once for the whole group, and one notify channel wakes all of its subscribers.
// The lock of the hub guards it.
type subscriptionGroup struct {
	key        string
	filter     event.Filter
	conditions event.Conditions // those of the filter
	size       int
	notify     chan struct{}  // closed when there are events for the group, and replaced then
	notifiedAt event.Position // the head at which notify was last replaced
	checkedAt  event.Position // the head at which matches was last computed
	matched    bool
}

// matches reports whether one of the events matches the filter of the group.
func (c *subscriptionGroup) matches(events []*event.Event) bool {
	if last := events[len(events)-1].Cursor.Position; c.checkedAt != last {
		c.checkedAt, c.matched = last, slices.ContainsFunc(events, c.conditions.Match)
	}
	return c.matched
}

// wakeUps are notify channels to close, so that the subscribers waiting on them poll again.
type wakeUps []chan struct{}

// addGroup gives the group a new notify channel, once for a head, and keeps the old one to be
// closed. The caller holds the lock of the hub.
func (d *wakeUps) addGroup(c *subscriptionGroup, at event.Position) {
	if c.notifiedAt == at && at > 0 {
		return
	}
	*d = append(*d, c.notify)
	c.notify, c.notifiedAt = make(chan struct{}), at
}

// wakeAll closes the channels. The caller does not hold the lock of the hub, which the woken
// subscribers take next.
func (d *wakeUps) wakeAll() {
	for _, door := range *d {
		close(door)
	}
}

// joinGroup adds the subscription to the group of its filter and its caller's rights of the
// moment. The caller holds the lock of the hub.
func (s *Subscription) joinGroup() {
	filter := s.filter
	if s.caller != nil {
		s.principal = s.caller()
		filter.Audience = event.AudienceOf(s.principal)
	}
	key := filter.Key()
	c := s.hub.groups[key]
	if c == nil {
		c = &subscriptionGroup{key: key, filter: filter, conditions: filter.Conditions(), notify: make(chan struct{})}
		s.hub.groups[key] = c
	}
	c.size++
	s.group = c
}

// leaveGroup removes the subscription from its group. The caller holds the lock of the hub.
func (s *Subscription) leaveGroup() {
	if s.group.size--; s.group.size == 0 {
		delete(s.hub.groups, s.group.key)
	}
}

// rightsChanged reports whether the principal of the subscription differs from the one that
// its group was chosen for. The caller holds a lock of the hub.
func (s *Subscription) rightsChanged() bool { return s.caller != nil && s.caller() != s.principal }

// regroup moves the subscription to the group of its rights of the moment, and reports whether
// that is another one. The caller holds the lock of the hub.
func (s *Subscription) regroup() (moved bool) {
	was := s.group
	s.leaveGroup()
	s.joinGroup()
	return s.group != was
}
