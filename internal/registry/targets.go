package registry

import (
	"context"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// Targets returns all instances of the service, by the ids that their owners gave them, for a monitoring system.
// It needs what seeing URLs needs: SERVICE, STAFF or ADMIN, or the right to manage the service.
func (r *Registrar) Targets(ctx context.Context, service string) ([]*Instance, error) {
	caller := auth.LastKnown(ctx)
	if caller == nil {
		return nil, auth.NotSignedIn(ctx)
	}
	s := r.directory.Service(service)
	switch {
	case !caller.MayUseServices() && !caller.MayManageService(service):
		return nil, fault.New(fault.Forbidden, "Reading the instances of services needs SERVICE, STAFF or ADMIN, and of an API key the scope services:read.")
	case s == nil:
		return nil, ServiceNotFound()
	}
	return r.directory.Instances(s.ID), nil
}
