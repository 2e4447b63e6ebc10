package registry

import (
	"slices"

	"github.com/backplane-dev/backplane/internal/entity"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// The types of events.
const (
	EventServiceRegistered     event.Type = "service.registered"
	EventServiceUpdated        event.Type = "service.updated"
	EventServiceDeregistered   event.Type = "service.deregistered"
	EventInstanceRegistered    event.Type = "instance.registered"
	EventInstanceStatusChanged event.Type = "instance.status_changed"
	EventInstanceDeregistered  event.Type = "instance.deregistered"
)

// The codes of errors.
const (
	CodeServiceNotFound  fault.Code = "SERVICE_NOT_FOUND"
	CodeServiceInvalid   fault.Code = "SERVICE_INVALID" // its name, tags, metadata or health check
	CodeInstanceNotFound fault.Code = "INSTANCE_NOT_FOUND"
	CodeInstanceInvalid  fault.Code = "INSTANCE_INVALID" // its id, URL, weight, metadata, incarnation or time to live
	CodeStaleIncarnation fault.Code = "STALE_INCARNATION"
	CodeNoInstance       fault.Code = "NO_INSTANCE"
	CodePickLeaseInvalid fault.Code = "PICK_LEASE_INVALID"
)

// ServiceEntity is the declaration of services.
var ServiceEntity = entity.Declare(entity.Declaration{
	Name: "service", Kind: uid.KindService,
	Events: []event.Declaration{
		{Type: EventServiceRegistered, Readers: event.ReadersServices, Data: serviceSnapshot{}},
		{Type: EventServiceUpdated, Readers: event.ReadersServices, Data: serviceSnapshot{}},
		{Type: EventServiceDeregistered, Readers: event.ReadersServices, Data: serviceSnapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodeServiceNotFound, Kind: fault.KindNotFound, Sentence: "There is no such service."},
		{Code: CodeServiceInvalid, Kind: fault.KindInvalid, Sentence: "The name, the tags, the strategy or the health check of a service is invalid."},
		{Code: CodeNoInstance, Kind: fault.KindUnavailable, Sentence: "No instance of the service can be called at the moment."},
		{Code: CodePickLeaseInvalid, Kind: fault.KindInvalid, Sentence: "The lease of a pick is not one of the caller's, was used, or has expired."},
	},
})

// InstanceEntity is the declaration of instances of services.
var InstanceEntity = entity.Declare(entity.Declaration{
	Name: "instance", Kind: uid.KindInstance,
	Events: []event.Declaration{
		{Type: EventInstanceRegistered, Readers: event.ReadersServices, Data: instanceSnapshot{}},
		{Type: EventInstanceStatusChanged, Readers: event.ReadersServices, Data: instanceSnapshot{}},
		{Type: EventInstanceDeregistered, Readers: event.ReadersServices, Data: instanceSnapshot{}},
	},
	Codes: []fault.Meaning{
		{Code: CodeInstanceNotFound, Kind: fault.KindNotFound, Sentence: "There is no such instance, or it is hidden from the caller. An instance that gets this registers again."},
		{Code: CodeInstanceInvalid, Kind: fault.KindInvalid, Sentence: "The id, the URL, the weight, the incarnation or the time to live of an instance is invalid."},
		{Code: CodeStaleIncarnation, Kind: fault.KindConflict, Sentence: "The instance was started again since. A client that gets this is a former incarnation, and must stop."},
	},
})

// EventTypes returns the types of the events that tell of services and their instances.
func EventTypes() []event.Type {
	return slices.Concat(ServiceEntity.EventTypes(), InstanceEntity.EventTypes())
}
