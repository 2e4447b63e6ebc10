package event

import (
	"fmt"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/auth"
)

// Readers says which callers may see the events of a type.
type Readers int

// The readers. The zero value admits ADMIN alone, so that a type whose readers were
// forgotten shows nothing to others.
const (
	ReadersAdmin    Readers = iota
	ReadersOwner            // the user whom the event concerns, and ADMIN
	ReadersStaff            // the user whom the event concerns, STAFF and ADMIN
	ReadersServices         // callers that may use services: SERVICE, STAFF and ADMIN
	ReadersPublic           // every signed-in caller while the data say "active": true, STAFF and ADMIN always
)

// Declaration is what the readers of the log know of a type of events.
type Declaration struct {
	Type    Type
	Readers Readers
	Scope   auth.Scope // that an API key needs to see the events; of ReadersOwner and ReadersStaff
	Data    any        // a value of the struct that Event.Data is encoded from, for Reference
}

// declarations are all types of events, sorted by name; Declare adds to them.
var declarations []Declaration

// Declare adds types of events. Domains call it, through package entity, while their
// packages are initialised. It panics on a mistake: a type without a name or declared twice,
// readers without the scope that API keys need, or with one that is not asked for.
func Declare(all ...Declaration) {
	for _, d := range all {
		i, found := search(d.Type)
		if d.Type == "" || found || (d.Scope != "") != (d.Readers == ReadersOwner || d.Readers == ReadersStaff) {
			panic(fmt.Sprintf("event: the declaration %+v is incomplete, or the second one of its type", d))
		}
		declarations = slices.Insert(declarations, i, d)
	}
}

// search returns the index of the type's declaration, or where it belongs.
func search(t Type) (i int, found bool) {
	return slices.BinarySearchFunc(declarations, t, func(d Declaration, t Type) int { return strings.Compare(string(d.Type), string(t)) })
}

// IsDeclared reports whether this release knows the type.
func IsDeclared(t Type) bool {
	_, found := search(t)
	return found
}

// declarationOf returns the declaration of the type; that of an unknown type admits ADMIN
// alone, without an API key.
func declarationOf(t Type) Declaration {
	if i, found := search(t); found {
		return declarations[i]
	}
	return Declaration{Type: t}
}

// DataOf returns a value of the struct that the data of the type are encoded from; nil if none is declared.
func DataOf(t Type) any { return declarationOf(t).Data }

// Types returns every declared type, sorted by name.
func Types() []Type {
	all := make([]Type, len(declarations))
	for i, d := range declarations {
		all[i] = d.Type
	}
	return all
}
