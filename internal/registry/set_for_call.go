package registry

import (
	"context"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
)

// SetForCall returns the service of the name, with its instances, to a caller whose request
// the gateway forwards to one of them. A public service is open to all callers; the others to
// signed-in users, and to API keys with the scope services:read or that of a service. Anonymous
// callers get the same error for an absent service as for one that is not public.
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
