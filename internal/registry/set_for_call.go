package registry

import (
	"context"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// SetForCall returns the service of the name, with its instances, to a caller who is
// to be passed on to one of them and learns nothing else of them. A public service is open to
// all; the others to those who are signed in, and to API keys with the scope
// services:read or that of a service. To a stranger one that is absent is as one that
// is closed.
func (d *Directory) SetForCall(ctx context.Context, name string) (*Set, error) {
	caller, set := auth.LastKnown(ctx), d.Set(name)
	switch {
	case set != nil && set.Service.Public:
		return set, nil
	case caller == nil:
		return nil, auth.NotSignedIn(ctx)
	case !caller.MayCallServices():
		return nil, fault.New(fault.Forbidden, "To call services, an API key needs the scope %s or that of a service.", auth.ServicesRead)
	case set == nil:
		return nil, ServiceNotFound()
	}
	return set, nil
}
