package graph

import (
	"context"

	"github.com/backplane-dev/backplane/graph/loader"
	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/user"
)

// maxNodes bounds the ids of Query.nodes.
const maxNodes = page.MaxSize

// orNull reads what is absent or hidden as null.
func orNull[T any](v *T, err error) (*T, error) {
	if err != nil && fault.From(err).Kind == fault.NotFound {
		return nil, nil
	}
	return v, err
}

// nodes returns the objects with the ids, in their order.
func nodes(ctx context.Context, ids []string) ([]model.Node, error) {
	if len(ids) > maxNodes {
		return nil, fault.New(fault.Invalid, fault.PageSizeInvalid, "Ask for at most %d nodes at a time.", maxNodes).At("ids")
	}
	return loader.NodesByIDs(ctx, ids)
}

// quantity returns how many units are in stock.
func quantity(s *order.Stock, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return s.Quantity, nil
}

// viewer returns who is calling, nil for a stranger.
func viewer(ctx context.Context) *model.Viewer {
	p := auth.From(ctx)
	if p == nil || p.UserID == "" {
		return nil
	}
	return &model.Viewer{UserID: p.UserID}
}

// self returns the account of the caller.
func (r *Resolver) self(ctx context.Context) (*user.User, error) {
	return r.users.Self(ctx, auth.From(ctx).UserID)
}

// events returns a page of the log, from the place behind the cursor on.
func (r *Resolver) events(ctx context.Context, f event.Filter, after *event.Cursor, first *int) (*model.EventConnection, error) {
	p, err := r.log.List(ctx, f, after, first)
	return connect(p, err, func(ctx context.Context) (int, error) { return r.log.Count(ctx, f) })
}

// instancesOf returns a page of a service's instances, null if the caller may not
// see them.
func instancesOf(ctx context.Context, v *registry.View, l loader.InstanceList) (*model.ServiceInstanceConnection, error) {
	if !v.Whole() {
		return nil, nil
	}
	return loader.ServiceInstances.Of(ctx, v, l)
}

// deadLetters returns a page of what consumers could not work on.
func (r *Resolver) deadLetters(ctx context.Context, f event.LetterFilter, args page.Args) (*model.DeadLetterConnection, error) {
	p, err := r.overseer.DeadLetters(ctx, f, args)
	return connect(p, err, func(ctx context.Context) (int, error) { return r.overseer.CountDeadLetters(ctx, f) })
}

// hasher makes the credential of a password when it is needed; without a
// password there is none.
func (r *Resolver) hasher(password *string) user.Hasher {
	if password == nil {
		return nil
	}
	return func(ctx context.Context) (user.Credential, error) {
		hash, err := r.sessions.HashPassword(ctx, *password)
		return user.Credential(hash), err
	}
}
