package event

import (
	"slices"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Filter says which events a reader wants. The zero value wants all.
type Filter struct {
	Types     []Type      // any of these; all if empty
	SubjectID string      // only of this subject
	UserID    uid.User    // only what concerns this user
	OrderID   uid.Order   // only what concerns this order
	ServiceID uid.Service // only what concerns this service
	Audience  *Audience   // only what this audience may see; all if nil
}

// Match reports whether the event is wanted.
func (f *Filter) Match(e *Event) bool {
	return (len(f.Types) == 0 || slices.Contains(f.Types, e.Type)) &&
		(f.SubjectID == "" || f.SubjectID == e.SubjectID) &&
		(f.UserID == "" || e.Concerns(string(f.UserID))) &&
		(f.OrderID == "" || e.Concerns(string(f.OrderID))) &&
		(f.ServiceID == "" || e.Concerns(string(f.ServiceID))) &&
		(f.Audience == nil || f.Audience.Sees(e))
}
