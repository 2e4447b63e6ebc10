package event

import (
	"fmt"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/uid"
)

// Filter says which events a reader wants. The zero value wants all. Conditions declares
// what each field demands; matching, SQL and subscription groups range over that.
type Filter struct {
	Types     []Type      // any of these; all if empty
	SubjectID string      // only of this subject
	UserID    uid.User    // only what concerns this user
	OrderID   uid.Order   // only what concerns this order
	ServiceID uid.Service // only what concerns this service
	Audience  *Audience   // only what this audience may see; all if nil
}

// Dimension is a property of events that a filter can restrict.
type Dimension string

// The dimensions of a filter.
const (
	ByType     Dimension = "type"
	BySubject  Dimension = "subject"
	ByUser     Dimension = "user"
	ByOrder    Dimension = "order"
	ByService  Dimension = "service"
	ByAudience Dimension = "audience"
)

// Condition restricts one dimension. It has the one value that its dimension takes.
type Condition struct {
	Dimension Dimension
	Types     []Type    // of ByType
	ID        string    // of BySubject, ByUser, ByOrder and ByService
	Audience  *Audience // of ByAudience
}

// Conditions all hold for an event that matches.
type Conditions []Condition

// Conditions returns what the filter demands; none for the zero value.
func (f *Filter) Conditions() Conditions {
	all := Conditions{
		{Dimension: ByType, Types: f.Types},
		{Dimension: BySubject, ID: f.SubjectID},
		{Dimension: ByUser, ID: string(f.UserID)},
		{Dimension: ByOrder, ID: string(f.OrderID)},
		{Dimension: ByService, ID: string(f.ServiceID)},
		{Dimension: ByAudience, Audience: f.Audience},
	}
	return slices.DeleteFunc(all, func(c Condition) bool { return len(c.Types) == 0 && c.ID == "" && c.Audience == nil })
}

// Match reports whether all conditions hold for the event.
func (cs Conditions) Match(e *Event) bool {
	for i := range cs {
		if !cs[i].match(e) {
			return false
		}
	}
	return true
}

// match refuses a dimension that it does not know: an event too few, not one too many.
func (c *Condition) match(e *Event) bool {
	switch c.Dimension {
	case ByType:
		return slices.Contains(c.Types, e.Type)
	case BySubject:
		return c.ID == e.SubjectID
	case ByUser, ByOrder, ByService:
		return e.Concerns(c.ID)
	case ByAudience:
		return c.Audience.Sees(e)
	default:
		return false
	}
}

// Key returns a text that is equal only for filters that match the same events, so that
// their subscribers can share one. Audiences that differ only in types that the filter
// does not want, or in a user who makes no difference for the others, share a key.
func (f *Filter) Key() string {
	var key strings.Builder
	for _, c := range f.Conditions() {
		var seen Audience
		if c.Audience != nil {
			seen = c.Audience.narrow(f.Types)
		}
		fmt.Fprintf(&key, "%s %q %q %q\n", c.Dimension, c.Types, c.ID, seen)
	}
	return key.String()
}
