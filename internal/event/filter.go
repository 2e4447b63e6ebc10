package event

import (
	"fmt"
	"slices"
	"strings"
	"time"

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
	Actor     string      // only what this user or API key did
	Since     *time.Time  // only what happened then or later
	Until     *time.Time  // only what happened before
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
	ByActor    Dimension = "actor"
	BySince    Dimension = "since"
	ByUntil    Dimension = "until"
	ByAudience Dimension = "audience"
)

// Condition restricts one dimension. It has the one value that its dimension takes.
type Condition struct {
	Dimension Dimension
	Types     []Type    // of ByType
	ID        string    // of BySubject, ByUser, ByOrder, ByService and ByActor
	At        time.Time // of BySince and ByUntil
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
		{Dimension: ByActor, ID: f.Actor},
	}
	all = slices.DeleteFunc(all, func(c Condition) bool { return len(c.Types) == 0 && c.ID == "" })
	if f.Since != nil {
		all = append(all, Condition{Dimension: BySince, At: *f.Since})
	}
	if f.Until != nil {
		all = append(all, Condition{Dimension: ByUntil, At: *f.Until})
	}
	if f.Audience != nil {
		all = append(all, Condition{Dimension: ByAudience, Audience: f.Audience})
	}
	return all
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
	case ByActor:
		return c.ID == e.Actor
	case BySince:
		return !e.OccurredAt.Before(c.At)
	case ByUntil:
		return e.OccurredAt.Before(c.At)
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
		fmt.Fprintf(&key, "%s %q %q %d %q\n", c.Dimension, c.Types, c.ID, c.At.UnixNano(), seen)
	}
	return key.String()
}
