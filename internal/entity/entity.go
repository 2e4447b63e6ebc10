// Package entity collects what each domain declares of its entities: the kind of their ids,
// their types of events with the readers of each, their error codes, and their unique columns.
//
// A domain declares an entity once, in its file entity.go, while its package is initialised.
// Readers take it from here: package event (audiences), package fault (kinds and sentences of
// codes), and the store (the error of a violated unique index). A server links all domains; a
// test that ranges over all types or codes imports them. The schema repeats types and codes for
// clients, and a test in graph holds both equal.
package entity

import (
	"fmt"
	"maps"
	"slices"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Declaration is what the rest of the server must know of an entity.
type Declaration struct {
	Name   string                  // in lower case, as event.Touched, Redis keys and metrics name it
	Kind   uid.Kind                // of its ids; empty if they have none
	Events []event.Declaration     // that tell of it
	Codes  []fault.Meaning         // with which its domain answers
	Unique map[string]*fault.Error // by table and column, e.g. products.sku: the error of a value that is taken
}

var declared = map[string]Declaration{}

// Declare adds an entity and returns its declaration. It panics on a mistake: a name, id kind,
// type of event, code or unique column that is declared twice, or is incomplete.
func Declare(d Declaration) Declaration {
	for _, other := range declared {
		if d.Name == other.Name || d.Kind != "" && d.Kind == other.Kind {
			panic(fmt.Sprintf("entity: %s has the name or the id kind of %s", d.Name, other.Name))
		}
		for column := range d.Unique {
			if other.Unique[column] != nil {
				panic(fmt.Sprintf("entity: %s and %s declare the column %s", d.Name, other.Name, column))
			}
		}
	}
	if d.Name == "" || d.Kind != "" && !slices.Contains(uid.Kinds(), d.Kind) {
		panic(fmt.Sprintf("entity: %q has no name, or the unknown id kind %q", d.Name, d.Kind))
	}
	event.Declare(d.Events...)
	fault.Declare(d.Codes...)
	declared[d.Name] = d
	return d
}

// EventTypes returns the types of the events that tell of the entity, in the order of the
// declaration.
func (d Declaration) EventTypes() []event.Type {
	all := make([]event.Type, len(d.Events))
	for i, e := range d.Events {
		all[i] = e.Type
	}
	return all
}

// UniqueColumns returns the error of each unique column of all entities, by table and column.
func UniqueColumns() map[string]*fault.Error {
	all := map[string]*fault.Error{}
	for _, d := range declared {
		maps.Copy(all, d.Unique)
	}
	return all
}
